// Does as the path says, well or badly.

import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const loop = {};
loop.loop = loop;

const well = (event) => ({ statusCode: 200, body: JSON.stringify({ event, pid: process.pid, worker: process.ppid }) });

const cases = {
  well,
  ledger: async (event) => {
    appendFileSync(event.queryStringParameters.file, `${event.body}\n`);
    await sleep(10);
    return well(event);
  },
  error: () => { throw new TypeError("as asked"); },
  circular: () => loop,
  large: () => ({ statusCode: 200, body: "x".repeat(6_291_556) }),
  never: () => sleep(60_000),
  lost: () => { Promise.reject(new Error("lost")); return sleep(60_000); },
  exit: () => process.exit(7),
};

export const handler = async (event) => {
  console.log("asked for", event.pathParameters.how);
  return cases[event.pathParameters.how](event);
};
