// Questions to the server, and what is said where it does not answer as hoped.
//
// In: a path, a body.  Out: the reply's values, or a `Failure` whose message says what to do.

export class Failure extends Error {
  constructor(message, { status = 0, id = "" } = {}) {
    super(message);
    this.status = status;
    this.id = id;
  }
}

const KEY = "armorm-api-key"; // kept for the tab, where the browser keeps anything
let apiKey = "";
try {
  apiKey = sessionStorage.getItem(KEY) ?? "";
} catch {
  // a browser that keeps nothing asks again
}
const REMEDIES = {
  401: "This server wants an API key: give it below.",
  403: "The server does not take this API key: give another below.",
  404: "The server has no such route: is it another version of armorm?",
  413: "That is more than the server takes at once: shorten the texts, or leave out answers.",
  503: "The server is stopping or still loading: try again in a moment.",
  504: "The server ran out of time: try fewer or shorter answers.",
};

export function setKey(key) {
  apiKey = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // see above
  }
}

export async function ask(path, body, signal) {
  const headers = { Accept: "application/json" };
  if (apiKey) headers.Authorization = `Bearer ${apiKey}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, signal, body: body && JSON.stringify(body) });
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new Failure("The server does not answer: is `armorm serve` still running?");
  }
  const told = await reply.json().catch(() => null);
  if (reply.ok && told !== null) return told;
  throw failure(reply, told);
}

function failure(reply, told) {
  const said = told?.error?.message ?? (Array.isArray(told?.detail) ? told.detail.map((d) => d.msg).join("; ") : told?.detail);
  const seconds = reply.headers.get("Retry-After");
  const facts = { status: reply.status, id: told?.error?.request_id ?? "" };
  if (reply.status === 429) return new Failure(`The server is busy: try again ${seconds ? `in ${seconds} s` : "in a moment"}.`, facts);
  const remedy = REMEDIES[reply.status] ?? "";
  if (reply.ok) return new Failure("The server's reply is no JSON: is it another version of armorm?", facts);
  const sentence = typeof said === "string" && said ? said : `The server answered with status ${reply.status}.`;
  return new Failure([remedy, reply.status === 401 ? "" : sentence].filter(Boolean).join(" "), facts);
}
