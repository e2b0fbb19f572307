// Reads [{policies, boundary, principal, action, resource, context, trust}] from each line of stdin; writes one line of
// ["Allowed" | "ExplicitlyDenied" | "ImplicitlyDenied" | "error: …"] for it on stdout, in the same order.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const { runSimulation } = createRequire(`${process.argv[2]}/package.json`)('@cloud-copilot/iam-simulate')

const named = (documents) => documents.map((policy, index) => ({ name: `policy-${index}`, policy }))

async function simulate({ policies, boundary, principal, action, resource, context, trust }) {
  const accountId = resource.split(':')[4] || principal.split(':')[4]
  const found = await runSimulation({
    request: { principal, action, resource: { resource, accountId }, contextVariables: context },
    identityPolicies: named(policies),
    permissionBoundaryPolicies: boundary ? named([boundary]) : undefined,
    resourcePolicy: trust ?? undefined,
    serviceControlPolicies: [],
    resourceControlPolicies: []
  }, {})
  if (found.resultType === 'error') return `error: ${JSON.stringify(found.errors)}`
  return found.overallResult
}

for await (const line of createInterface({ input: process.stdin })) {
  const answers = []
  for (const question of JSON.parse(line)) answers.push(await simulate(question))
  process.stdout.write(`${JSON.stringify(answers)}\n`)
}
