// Reads [{policies, boundary, principal, action, resource, context, trust}] on stdin; writes ["Allowed" | "ExplicitlyDenied" |
// "ImplicitlyDenied" | "error: …"] on stdout, in the same order.
import { createRequire } from 'node:module'
import { text } from 'node:stream/consumers'

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

const answers = []
for (const question of JSON.parse(await text(process.stdin))) answers.push(await simulate(question))
process.stdout.write(JSON.stringify(answers))
