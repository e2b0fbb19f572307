// A greeting in JavaScript: API Gateway's event in, its response out.

const routes = { "/greetings/{name}": greeting, "/sums": sum };

export const handler = async (event) => routes[event.resource](event);

function greeting({ pathParameters, queryStringParameters }) {
  const times = Number(queryStringParameters?.times ?? 1);
  if (!Number.isInteger(times)) return reply(400, { error: "times must be a whole number" });
  const name = decodeURIComponent(pathParameters.name); // API Gateway passes it on as the client encoded it
  return reply(200, { greeting: `Hello, ${name}`, times });
}

function sum({ body, isBase64Encoded }) {
  let numbers;
  try {
    ({ numbers } = JSON.parse(isBase64Encoded ? Buffer.from(body, "base64").toString() : body));
  } catch {
    return reply(400, { error: "the body is not JSON" });
  }
  if (!Array.isArray(numbers) || !numbers.every(Number.isFinite)) {
    return reply(400, { error: "numbers must be a list of numbers" });
  }
  return reply(201, { total: numbers.reduce((total, number) => total + number, 0) });
}

function reply(statusCode, document) {
  return { statusCode, headers: { "Content-Type": "application/json" }, body: JSON.stringify(document) };
}
