// A comparison as it runs: its requests, its columns, and the stream that is taken up again when the connection breaks.
import { batch, computed, signal } from "./vendor/preact.js";
import { announce } from "./announcer.js";
import { ApiError, getJson, key, postJson, readEvents, send, waitForKey } from "./api.js";
import { sets } from "./catalogue.js";
import { Column, keepClock } from "./column_state.js";
import { plural } from "./formats.js";

const RETRY_MS = [250, 500, 1000, 2000, 4000, 8000];
const KEPT_REQUEST = "fanout-request-";

/** One request of a run; adding a model to a run makes another. */
class Part {
  constructor(run, body, columns) {
    this.run = run;
    this.body = body;
    this.columns = columns;
    this.id = null;
    this.lastEvent = null;
    this.isDone = false;
  }

  async start() {
    const response = await send("/v1/completion", { method: "POST", body: { ...this.body, stream: true, resumable: true }, signal: this.run.abort.signal });
    await this.read(response);
  }

  async read(response) {
    for await (const { id, data } of readEvents(response)) {
      if (id) this.lastEvent = id;
      if (data === null) this.isDone = true;
      else batch(() => this.take(data));
    }
  }

  take(chunk) {
    if (this.id !== chunk.id) {
      this.id = chunk.id;
      keepRequest(chunk.id, this.body);
      this.run.named();
    }
    for (const choice of chunk.choices) {
      const column = this.find(choice);
      column.add(choice.text);
      if ("usage" in choice) {
        column.finish(choice);
        this.run.announceEnds();
      }
    }
    if (!chunk.choices.length) this.totals = chunk;
  }

  find(choice) {
    let column = this.columns[choice.index];
    if (!column) {
      column = this.columns[choice.index] = new Column(choice);
      this.run.columns.value = [...this.run.columns.value, column];
    }
    return column;
  }

  /** Read to the end, through broken connections. */
  async follow(step) {
    let tries = 0;
    while (!this.isDone) {
      const before = this.lastEvent;
      try {
        await step();
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error.status === 401 && (await this.hasNewKey())) continue;
        if (error instanceof ApiError && error.status) return this.fail(error);
      }
      if (this.isDone) break;
      if (!this.id) return this.fail(new ApiError(0, { message: "the server cannot be reached", code: "unreachable" }));
      if (this.lastEvent !== before) tries = 0;
      if (tries === RETRY_MS.length) return this.fail(new ApiError(0, { message: "the connection is lost and could not be restored" }));
      this.run.connection.value = "The connection is lost. Taking the answers up again…";
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS[tries++]));
      step = () => this.takeUp();
    }
    this.run.connection.value = null;
  }

  /** Wait for a key that the server takes, with what has come; return whether one was given while this run is shown. */
  async hasNewKey() {
    const notice = "The server does not take the key any more. The answers go on once you give another one.";
    this.run.connection.value = notice;
    announce(notice);
    return (await waitForKey()) && !this.run.abort.signal.aborted;
  }

  async takeUp() {
    const headers = this.lastEvent ? { "Last-Event-ID": this.lastEvent } : {};
    const response = await send(`/v1/comparisons/${this.id}/events`, { headers, signal: this.run.abort.signal });
    this.run.connection.value = null;
    await this.read(response);
  }

  fail(error) {
    this.run.connection.value = null;
    const byIndex = new Map(error.details.filter((detail) => "index" in detail).map((detail) => [detail.index, detail]));
    const isLost = error.code === "comparison_not_found";
    const reason = key.value ? "the server has been restarted, or the key is another account's" : "the server has been restarted";
    const message = isLost ? `this answer is gone: ${reason}` : error.message;
    batch(() => {
      if (!byIndex.size) this.run.error.value = { message, isLost, details: error.details };
      this.columns.forEach((column, index) => {
        const failure = byIndex.get(index) ?? { message, kind: isLost || !error.status ? "network" : "bad_request" };
        if (column.isRunning) column.finish({ text: "", finish_reason: "error", error: failure });
      });
    });
  }
}

function keepRequest(id, body) {
  try {
    sessionStorage.setItem(KEPT_REQUEST + id, JSON.stringify(body));
  } catch {
    // Full: after a reload the run shows its answers without its prompt.
  }
}

function readRequest(id) {
  return JSON.parse(sessionStorage.getItem(KEPT_REQUEST + id) ?? "null");
}

/** Return the places of a request's answers, in the server's order: by entry, sets written out, then by sample. */
function listPlaces(body) {
  const members = new Map(sets.value.map((set) => [set.id, set.models]));
  const written = body.model.flatMap((entry) =>
    (members.get(entry.model) ?? [entry.model]).map((model) => ({ ...entry, model, label: entry.label ? (model === entry.model ? entry.label : `${entry.label}: ${model}`) : model })),
  );
  const places = [];
  written.forEach(({ model, label, n, messages }, entry) => {
    const samples = n ?? body.n ?? 1;
    for (let sample = 0; sample < samples; sample++) places.push({ index: places.length, entry, sample, samples, model, label, earlier: messages ?? body.messages });
  });
  return places;
}

/** Return a past request, in whichever format it came, as one of `POST /v1/completion`; null if it is not kept. */
function toRequest(body) {
  if (typeof body !== "object" || body === null) return null;
  const model = (Array.isArray(body.model) ? body.model : [body.model]).map((entry) => (typeof entry === "string" ? { model: entry } : entry));
  if (typeof body.prompt === "string") return { ...body, model };
  const messages = Array.isArray(body.messages) ? body.messages : [];
  const last = messages.at(-1);
  return { model, prompt: typeof last?.content === "string" ? last.content : String(body.prompt?.[0] ?? ""), messages: messages.slice(0, -1) };
}

export class Run {
  constructor() {
    this.parts = [];
    this.columns = signal([]);
    this.error = signal(null);
    this.connection = signal(null);
    this.request = signal(null);
    this.created = null;
    this.hasTexts = true;
    this.abort = new AbortController();
    this.ids = signal([]);
    this.isRunning = computed(() => this.columns.value.some((column) => column.isRunning));
    /** Called with the run's address once it has one. */
    this.onNamed = () => {};
  }

  /** Ask the models of a request. */
  async add(body) {
    if (!this.request.value) this.request.value = body;
    const columns = listPlaces(body).map((place) => new Column(place, place.earlier));
    const part = new Part(this, body, columns);
    this.parts.push(part);
    this.columns.value = [...this.columns.value, ...columns];
    await this.watch(() => part.follow(() => part.start()));
  }

  async watch(work) {
    keepClock(true);
    try {
      await work();
    } finally {
      keepClock(false);
    }
  }

  named() {
    this.ids.value = this.parts.map((part) => part.id).filter(Boolean);
    this.onNamed(this.ids.value);
  }

  announceEnds() {
    const columns = this.columns.value;
    const ended = columns.filter((column) => !column.isRunning);
    const failed = ended.filter((column) => column.state.value === "failed");
    const names = failed.map((column) => column.place.label).join(", ");
    announce(`${ended.length - failed.length} of ${plural(columns.length, "model")} answered${names ? `; ${names} failed` : ""}`);
  }

  /** Stop one answer, or all; what has arrived stays. */
  async stop(column) {
    for (const part of this.parts) {
      const index = column ? part.columns.indexOf(column) : null;
      if (index === -1 || part.isDone || !part.id) continue;
      await postJson(`/v1/comparisons/${part.id}/cancel`, index === null ? {} : { index: [index] }).catch((error) => {
        if (!(error instanceof ApiError)) throw error;
      });
    }
  }

  /** Leave the run: its streams are closed; the server ends its calls after a while, unless it is taken up again. */
  leave() {
    this.abort.abort();
  }

  /** Open a run by its address: take it up if it still runs, or show it from the history. */
  async open(ids) {
    for (const id of ids) {
      const body = readRequest(id);
      const columns = body ? listPlaces(body).map((place) => new Column(place, place.earlier)) : [];
      const part = new Part(this, body ?? { model: [] }, columns);
      part.id = id;
      this.parts.push(part);
      if (body && !this.request.value) this.request.value = body;
      this.columns.value = [...this.columns.value, ...columns];
      this.ids.value = [...ids];
      await this.openPart(part, id);
    }
  }

  async openPart(part, id) {
    let past = null;
    try {
      past = await getJson(`/v1/comparisons/${id}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (![404, 503].includes(error.status)) return part.fail(error);
    }
    if (past && (past.request || past.choices.every((choice) => choice.text !== null))) return this.show(part, past);
    // Not in the history, or there without its texts: the stream itself may still be kept.
    await this.watch(() => part.follow(() => part.takeUp()));
    if (past && this.error.value?.isLost) {
      this.error.value = null;
      this.show(part, past);
    }
  }

  show(part, past) {
    const request = toRequest(past.request);
    this.created = past.created;
    if (request && !this.request.value) this.request.value = request;
    this.hasTexts = past.choices.every((choice) => choice.text !== null);
    part.isDone = true;
    const others = this.columns.value.filter((column) => !part.columns.includes(column));
    part.columns = past.choices.map((choice) => {
      const samples = past.choices.filter((other) => other.entry === choice.entry).length;
      return new Column({ ...choice, samples }, request?.messages);
    });
    this.columns.value = [...others, ...part.columns];
    part.columns.forEach((column, index) => column.finish(past.choices[index]));
  }
}
