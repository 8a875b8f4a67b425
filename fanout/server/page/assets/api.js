// Requests of the public API, and the reader of its event streams.
import { effect, signal } from "./vendor/preact.js";

const KEY = "fanout-key";
/** The key for this server: kept for the tab alone, sent as a header, never part of an address. */
export const key = signal(sessionStorage.getItem(KEY) ?? "");
/** Set while the server wants a key, or another one than it has. */
export const keyWanted = signal(null);

/** Number of keys given so far. */
const keysGiven = signal(0);

export function setKey(value) {
  key.value = value.trim();
  keysGiven.value += 1;
  sessionStorage.setItem(KEY, key.value);
  keyWanted.value = null;
}

/** Wait for the answer to the question for a key; return whether one was given. */
export async function waitForKey() {
  const before = keysGiven.peek();
  let stop;
  await new Promise((resolve) => {
    stop = effect(() => keyWanted.value === null && resolve());
  });
  stop();
  return keysGiven.peek() > before;
}

/** An answer that is an error, or none at all (status 0). */
export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.details = error.details ?? [];
  }
}

async function toError(response) {
  const body = await response.json().catch(() => null);
  return new ApiError(response.status, body?.error ?? { message: `the server answered with status ${response.status}` });
}

/** Send a request; throw `ApiError` unless it is answered well. */
export async function send(path, { method = "GET", body, headers = {}, signal: abort } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (body !== undefined || method === "POST") sent["Content-Type"] = "application/json";
  if (key.value) sent.Authorization = `Bearer ${key.value}`;
  let response;
  try {
    response = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal: abort });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "the server cannot be reached", code: "unreachable" });
  }
  if (response.ok) return response;
  const error = await toError(response);
  if (response.status === 401) keyWanted.value = key.value ? `The server does not know this key.` : "This server asks for a key.";
  throw error;
}

export const getJson = async (path, options) => (await send(path, options)).json();
export const postJson = async (path, body = {}) => (await send(path, { method: "POST", body })).json();

/** Yield `{ id, data }` of each event of a response; `data` is JSON, or null for `[DONE]`. */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const lines = event.split("\n");
        const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
        if (data === undefined) continue;
        const id = lines.find((line) => line.startsWith("id: "))?.slice(4);
        yield { id, data: data === "[DONE]" ? null : JSON.parse(data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
