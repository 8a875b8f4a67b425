// The next request: prompt, system message, parameters, entries. Its draft is kept for the tab alone.
import { computed, effect, signal } from "./vendor/preact.js";
import { ready } from "./catalogue.js";
import { entries } from "./store.js";

const DRAFT = "fanout-draft";
const STARTING_MODELS = 3;
const draft = JSON.parse(sessionStorage.getItem(DRAFT) ?? "{}");

export const prompt = signal(draft.prompt ?? "");
export const system = signal(draft.system ?? "");
/** Parameters of all models, as they were typed. */
export const parameters = signal(draft.parameters ?? {});
export const samples = signal(draft.samples ?? 1);

effect(() => {
  const kept = { prompt: prompt.value, system: system.value, parameters: parameters.value, samples: samples.value };
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify(kept));
  } catch {
    // Too long to be kept: it lasts as long as the page.
  }
});

/** Entries of the next request: the reader's choice, or the first models that are ready. */
export const chosen = computed(() => entries.value ?? ready.value.slice(0, STARTING_MODELS).map((model) => ({ model: model.id })));

/** Parameters that every model may take, with the ranges of `POST /v1/completion`. */
export const FIELDS = [
  { name: "max_tokens", label: "Most tokens", min: 1, step: 1 },
  { name: "temperature", label: "Temperature", min: 0, max: 1, step: 0.1 },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.05 },
  { name: "top_k", label: "Top k", min: -1, step: 1 },
  { name: "seed", label: "Seed", step: 1 },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1 },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1 },
  { name: "repetition_penalty", label: "Repetition penalty", min: -2, max: 2, step: 0.1 },
  { name: "stop", label: "Stop at", text: true },
];
export const REQUEST_FIELDS = [...FIELDS, { name: "timeout_s", label: "Time limit (s)", min: 1, step: 1 }];

/** Return parameters as they are sent: numbers, and nothing for what is left empty. */
export function toSent(typed) {
  const texts = new Set(REQUEST_FIELDS.filter((field) => field.text).map((field) => field.name));
  const given = Object.entries(typed).filter(([, value]) => value !== "" && value !== null);
  return Object.fromEntries(given.map(([name, value]) => [name, texts.has(name) ? value.replaceAll("\\n", "\n") : Number(value)]));
}

/** Return the body of `POST /v1/completion` for a prompt and entries. */
export function buildBody(text, list) {
  const body = {
    model: list.map(({ model, label, parameters: own, messages }) => ({ model, ...(label ? { label } : {}), ...toSent(own ?? {}), ...(messages ? { messages } : {}) })),
    prompt: text,
  };
  if (system.value.trim()) body.system = system.value;
  Object.assign(body, toSent(parameters.value));
  if (samples.value > 1) body.n = Number(samples.value);
  return body;
}

/** Take a past request as the next one. */
export function takeRequest(body) {
  const { model, prompt: text, system: message, n, stream, resumable, metadata, messages, ...rest } = body;
  const fields = new Set(REQUEST_FIELDS.map((field) => field.name));
  const list = (Array.isArray(model) ? model : [model]).map((entry) => (typeof entry === "string" ? { model: entry } : entry));
  prompt.value = text ?? "";
  system.value = message ?? "";
  samples.value = n ?? 1;
  parameters.value = Object.fromEntries(Object.entries(rest).filter(([name]) => fields.has(name)).map(([name, value]) => [name, String(value)]));
  entries.value = list.map(({ model: name, label, messages: earlier, ...own }) => ({
    model: name,
    ...(label ? { label } : {}),
    parameters: Object.fromEntries(Object.entries(own).map(([field, value]) => [field, String(value)])),
  }));
}
