// One job as it runs: progress, pace, cost, failures, and what can be done to it.
import { html, useEffect, useState } from "../vendor/preact.js";
import { announce } from "../announcer.js";
import { ApiError, key, postJson, readEvents, send } from "../api.js";
import { findModel } from "../catalogue.js";
import { DataTable } from "./data_table.js";
import { cost, count, duration, moment, percent, plural, rate, UNKNOWN } from "../formats.js";
import { Pending, useJson } from "../loader.js";
import { save } from "./save.js";

const RETRY_MS = 1500;
const RESUMABLE = ["stopped", "cancelled", "expired"];
const OPEN = ["loading", "queued", "running", "cancelling"];

/** Return a job as it changes: from its events, taken up again when they break off. */
function useJob(id, turn) {
  const [state, setState] = useState({ job: null, error: null, isLost: false });
  useEffect(() => {
    const abort = new AbortController();
    const follow = async () => {
      while (!abort.signal.aborted) {
        try {
          const response = await send(`/v1/jobs/${id}/events`, { signal: abort.signal });
          for await (const { data } of readEvents(response)) {
            if (data === null) return;
            setState({ job: data, error: null, isLost: false });
          }
        } catch (error) {
          if (error.name === "AbortError") return;
          if (error instanceof ApiError && error.status) return setState((before) => ({ ...before, error }));
        }
        setState((before) => ({ ...before, isLost: true }));
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    };
    follow();
    return () => abort.abort();
  }, [id, turn, key.value]);
  return state;
}

/** An open circuit as a pause until its next probe. */
const toPause = ({ model, probe_in_s: seconds, failures }) => ({ model, seconds_left: seconds ?? 0, reason: `${failures} failures in a row` });

/** What holds the accounts of a job's models back, by the providers that serve them. */
function Holds({ job }) {
  const providers = new Set(job.models.map(({ model }) => findModel(model)?.provider ?? model.split("/")[0]));
  const { data } = useJson(OPEN.includes(job.state) ? "/v1/providers" : null, 3000);
  const holds = (data?.data ?? []).filter((provider) => providers.has(provider.id)).flatMap((provider) => provider.accounts.flatMap((account) => [...account.pauses, ...account.circuits.map(toPause)].map((pause) => ({ ...pause, provider: provider.id }))));
  if (!holds.length) return null;
  return html`<p class="notice">${holds.map((hold) => `${hold.provider}${hold.model ? ` (${hold.model})` : ""} waits ${duration(hold.seconds_left * 1000)}: ${hold.reason.replaceAll("_", " ")}`).join(" · ")}</p>`;
}

function Actions({ job, onChanged }) {
  const [error, setError] = useState(null);
  const act = (step, sentence) => async () => {
    try {
      await step();
      setError(null);
      announce(sentence);
      onChanged();
    } catch (caught) {
      if (!(caught instanceof ApiError)) throw caught;
      setError(caught);
    }
  };
  const post = (name) => () => postJson(`/v1/jobs/${job.id}/${name}`);
  return html`<div class="actions-row">
    ${OPEN.includes(job.state) && html`<button class="stop" onClick=${act(post("cancel"), "Stopped")}>Stop</button>`}
    ${RESUMABLE.includes(job.state) && html`<button onClick=${act(post("resume"), "Resumed")}>Resume</button>`}
    ${!OPEN.includes(job.state) && job.progress.failed > 0 && html`<button onClick=${act(post("retry"), "Failures are sent again")}>Retry ${count(job.progress.failed)} failures</button>`}
    <span class="grow"></span><span class="quiet">Save the results:</span>
    ${["jsonl", "csv", "parquet"].map((format) => html`<button key=${format} class="quiet-button" onClick=${act(() => save(`/v1/jobs/${job.id}/results.${format}${format === "csv" ? "?quote_formulas=true" : ""}`, `${job.id}.${format}`), "Saved")} aria-label="Save results as ${format}">${format}</button>`)}
    ${error && html`<p class="failure" role="alert">${error.message}</p>`}
  </div>`;
}

const COLUMNS = [
  { name: "model", value: (row) => row.model },
  { name: "ended", isNumber: true, value: (row) => row.ended, show: (row) => count(row.ended) },
  { name: "answered", isNumber: true, value: (row) => row.answered, show: (row) => count(row.answered) },
  { name: "failures", value: (row) => Object.entries(row.failures).map(([kind, number]) => `${kind.replaceAll("_", " ")} ${number}`).join(", ") || "–" },
  { name: "attempts", isNumber: true, value: (row) => row.attempts, show: (row) => count(row.attempts) },
  { name: "answer tokens", isNumber: true, value: (row) => row.completion_tokens, show: (row) => count(row.completion_tokens) },
  { name: "mean time", isNumber: true, value: (row) => row.mean_ms, show: (row) => duration(row.mean_ms) },
  { name: "cost", isNumber: true, value: (row) => row.cost_usd, show: (row) => cost(row.cost_usd) },
];

export function Job({ id }) {
  const [turn, setTurn] = useState(0);
  const { job, error, isLost } = useJob(id, turn);
  useEffect(() => {
    if (job && !OPEN.includes(job.state)) announce(`The job is ${job.state}`);
  }, [job?.state]);
  if (!job) return html`<${Pending} error=${error} />`;
  const { progress } = job;
  const share = job.calls ? progress.ended / job.calls : null;
  return html`<div class="job">
    <h1>${job.name ?? "Job"} <span class="state" data-state=${{ running: "answering", done: "done", stopped: "failed" }[job.state] ?? "stopped"}>${job.state}</span></h1>
    ${job.reason && html`<p class="notice">${job.reason}</p>`}
    ${isLost && html`<p class="notice" role="status">The connection is lost. Taking the job up again…</p>`}
    <meter class="wide" min="0" max=${job.calls || 1} value=${progress.ended} aria-label="${percent(share)} of all calls have ended"></meter>
    <dl class="figures big">
      <div><dt>calls</dt><dd>${count(progress.ended)} of ${count(job.calls)}</dd></div>
      <div><dt>failed</dt><dd>${count(progress.failed)}</dd></div>
      <div><dt>in flight</dt><dd>${count(progress.running)}</dd></div>
      <div><dt>waiting for a retry</dt><dd>${count(progress.waiting)}</dd></div>
      <div><dt>pace</dt><dd>${rate(progress.calls_per_second)}</dd></div>
      <div><dt>time left</dt><dd>${OPEN.includes(job.state) ? duration(progress.left_s === null ? null : progress.left_s * 1000) : UNKNOWN}</dd></div>
      <div><dt>cost so far</dt><dd>${cost(progress.cost_usd)}</dd></div>
      <div><dt>cost to come</dt><dd>${cost(progress.left_usd)}</dd></div>
    </dl>
    <${Holds} job=${job} />
    <${Actions} job=${job} onChanged=${() => setTurn(turn + 1)} />
    <${DataTable} title="By model" file="${job.id}-models" columns=${COLUMNS} rows=${job.counts} empty="No call has ended yet." />
    <p class="quiet">Made ${moment(job.created_at)}${job.started_at ? `, begun ${moment(job.started_at)}` : ""}${job.ended_at ? `, ended ${moment(job.ended_at)}` : ""}. ${plural(job.items, "row")} × ${plural(job.labels.length, "model")} × ${plural(job.repeats, "repeat")}.${job.max_cost_usd === null ? "" : ` At most ${cost(job.max_cost_usd)}.`}</p>
  </div>`;
}
