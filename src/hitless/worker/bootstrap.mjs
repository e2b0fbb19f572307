// Runs a service's Node.js handler by Lambda's Runtime API. worker/runtime_api.py starts it as `node bootstrap.mjs`.
//
// It behaves as Lambda's own Node.js runtime: how a handler is found and called, the context, the types of errors, the
// log lines. Sources: nodejs-handler.html, nodejs-exceptions.html and runtimes-api.html of Lambda's developer guide.
// Only the standard library; Node.js 18 and newer.

import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { format, types } from "node:util";

const API = "/2018-06-01/runtime";
const [HOST, PORT] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const ROOT = process.env.LAMBDA_TASK_ROOT;
const DECLARED = Number(/nodejs(\d+)/.exec(process.env.AWS_EXECUTION_ENV)?.[1]);
// Lambda removed callbacks, and context.done and the like, with Node.js 24.
const HAS_CALLBACKS = DECLARED < 24;
const NEVER_SETTLED =
  "The handler's promise was never settled, and nothing is left that could settle it. On Lambda this is an unexpected" +
  " Node.js exit code: https://nodejs.org/docs/latest/api/process.html#exit-codes";
const NO_CALLBACKS =
  "ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24." +
  " Make the handler async, with two parameters: https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html";
const NOTHING = () => {};

const agent = new http.Agent({ keepAlive: true });
const require = createRequire(path.join(ROOT, "index.js"));
let requestId, running; // of the latest invocation, and of the one that has no result yet
let whenIdle = NOTHING; // called once nothing is left in the event loop
let isLoaded = false;

function call(method, target, body) {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "Content-Length": Buffer.byteLength(body) };
    const asked = http.request({ host: HOST, port: PORT, agent, method, path: API + target, headers }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve({ headers: response.headers, text: Buffer.concat(parts).toString() }));
      response.on("error", reject);
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

function patchConsole() {
  const logger = (level) => (...parts) =>
    process.stdout.write(`${new Date().toISOString()}\t${requestId}\t${level}\t${format(...parts)}\n`);
  for (const name of ["trace", "debug", "info", "warn", "error", "fatal"]) console[name] = logger(name.toUpperCase());
  console.log = console.info;
}

function named(type, message, stack) {
  const error = new Error(message);
  error.name = `Runtime.${type}`;
  if (stack) error.stack = `${error.name}: ${message}\n${stack}`;
  return error;
}

function logError(what, thrown) {
  const error = thrown instanceof Error ? thrown : new Error(thrown);
  const withFields = (_, value) => {
    if (!(value instanceof Error)) return value;
    const { name, message, code, stack } = value;
    return { errorType: name, errorMessage: message, code, ...value, stack: String(stack).split("\n") };
  };
  try {
    console.error(what, `\t${JSON.stringify(error, withFields)}`);
  } catch {
    console.error(what, `\t${JSON.stringify(described(error))}`); // the error has fields that are not JSON
  }
}

function described(error) {
  try {
    const isError = types.isNativeError(error) || (error?.name && error.message && error.stack);
    if (!isError) return { errorType: typeof error, errorMessage: String(error), trace: [] };
    return { errorType: error.name, errorMessage: error.message, trace: error.stack.split("\n") };
  } catch {
    return { errorType: "handled", errorMessage: "the error has no readable name, message and stack", trace: [] };
  }
}

// Ends the process for an error that no handler caught, after the Runtime API has been told.
async function die(what, error, status) {
  logError(what, error);
  const target = isLoaded ? running && `/invocation/${running}/error` : "/init/error";
  try {
    if (target) await call("POST", target, JSON.stringify(described(error)));
  } finally {
    process.exit(status);
  }
}

async function load(name) {
  const [, module, attributes] = /^([^.]*)\.(.*)$/.exec(path.basename(name)) ?? [];
  if (!module || name.includes("..")) throw named("MalformedHandlerName", `'${name}' is not a valid handler name`);
  globalThis.awslambda = { streamifyResponse: () => { throw new Error("hitless does not serve response streaming"); } };
  let exported;
  try {
    exported = await imported(path.dirname(name), module);
  } catch (error) {
    if (error instanceof SyntaxError) throw named("UserCodeSyntaxError", String(error), error.stack);
    if (error?.code === "MODULE_NOT_FOUND") throw named("ImportModuleError", String(error), error.stack);
    throw error;
  }
  const found = attributes.split(".").reduce((object, key) => object?.[key], exported);
  if (!found) throw named("HandlerNotFound", `${name} is undefined or not exported`);
  if (typeof found !== "function") throw named("HandlerNotFound", `${name} is not a function`);
  if (!HAS_CALLBACKS && found.length >= 3) throw named("CallbackHandlerDeprecated", NO_CALLBACKS);
  return found;
}

// In the order of Lambda's runtime: as named, .js, .mjs, .cjs, then a package of node_modules.
async function imported(folder, module) {
  const file = path.resolve(ROOT, folder, module);
  const extension = ["", ".js", ".mjs", ".cjs"].find((one) => fs.existsSync(file + one));
  if (extension === ".mjs" || (extension === ".js" && isModule(path.dirname(file)))) {
    return import(pathToFileURL(file + extension));
  }
  if (extension !== undefined) return require(file + extension);
  return require(require.resolve(module, { paths: [ROOT, path.resolve(ROOT, folder)] }));
}

// Whether the nearest package.json says that .js files are ES modules.
function isModule(folder) {
  if (folder.endsWith("/node_modules")) return false;
  const file = path.join(folder, "package.json");
  if (fs.existsSync(file)) {
    try {
      return JSON.parse(fs.readFileSync(file)).type === "module";
    } catch {
      return false; // Node.js itself tells what is wrong with it
    }
  }
  return folder !== "/" && isModule(path.dirname(folder));
}

class Invocation {
  isSettled = false;
  finished = new Promise((resolve) => (this.finish = resolve));

  constructor(id) {
    this.id = id;
  }

  async post(kind, body) {
    this.isSettled = true;
    whenIdle = NOTHING;
    await call("POST", `/invocation/${this.id}/${kind}`, body);
    if (running === this.id) running = undefined;
    this.finish();
  }

  succeed(result) {
    if (this.isSettled) return;
    let body;
    try {
      body = JSON.stringify(result === undefined ? null : result) ?? "null";
    } catch (error) {
      throw new Error(`Unable to stringify response body: ${error.message}`); // circular, or a BigInt
    }
    this.post("response", body);
  }

  fail(error) {
    if (this.isSettled) return;
    logError("Invoke Error", error);
    this.post("error", JSON.stringify(described(error)));
  }

  // The first result counts. That of a callback may have to wait until the event loop is empty.
  settle(error, result, waits = false) {
    if (this.isSettled || this.isCalled) return;
    if (error !== undefined && error !== null) this.fail(error);
    else if (waits) whenIdle = () => setImmediate(() => this.succeed(result));
    else this.succeed(result);
    this.isCalled = true;
  }
}

function contextOf(invocation, headers) {
  const deadlineMs = Number(headers["lambda-runtime-deadline-ms"]);
  const context = HAS_CALLBACKS
    ? {
        callbackWaitsForEmptyEventLoop: true,
        succeed: (result) => invocation.settle(null, result),
        fail: (error) => invocation.settle(error ?? "handled"),
        done: (error, result) => invocation.settle(error, result),
      }
    : {};
  return Object.assign(context, {
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: undefined,
    identity: undefined,
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    awsRequestId: invocation.id,
    getRemainingTimeInMillis: () => deadlineMs - Date.now(),
  });
}

function invoke(handler, { headers, text }) {
  const invocation = new Invocation(headers["lambda-runtime-aws-request-id"]);
  requestId = running = invocation.id;
  process.env._X_AMZN_TRACE_ID = headers["lambda-runtime-trace-id"] ?? "";
  const context = contextOf(invocation, headers);
  const fail = (error) => invocation.settle(error ?? "handled");
  whenIdle = () => invocation.succeed(null); // the handler returned and never called back
  try {
    const callback = (error, result) => invocation.settle(error, result, context.callbackWaitsForEmptyEventLoop);
    const result = HAS_CALLBACKS ? handler(JSON.parse(text), context, callback) : handler(JSON.parse(text), context);
    if (typeof result?.then === "function") {
      if (!invocation.isCalled) whenIdle = () => invocation.fail(named("NodeJsExit", NEVER_SETTLED));
      result.then((value) => invocation.settle(null, value)).then(null, fail);
    } else if (!HAS_CALLBACKS) invocation.succeed(result);
  } catch (error) {
    fail(error);
  }
  return invocation.finished;
}

async function main() {
  patchConsole();
  process.on("uncaughtException", (error) => die("Uncaught Exception", error, 129));
  process.on("unhandledRejection", (reason) => {
    const error = named("UnhandledPromiseRejection", String(reason), reason?.stack);
    die("Unhandled Promise Rejection", Object.assign(error, { reason }), 128);
  });
  process.on("beforeExit", () => {
    const act = whenIdle;
    whenIdle = NOTHING;
    act();
  });
  let handler;
  try {
    handler = await load(process.env._HANDLER);
  } catch (error) {
    return die("Uncaught Exception", error, 129);
  }
  isLoaded = true;
  for (;;) await invoke(handler, await call("GET", "/invocation/next"));
}

main().catch((error) => die("Uncaught Exception", error, 129));
