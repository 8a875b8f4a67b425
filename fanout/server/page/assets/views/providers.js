// The view Providers: limits, what is left of them, pauses, and how calls have done, as they change.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { key } from "../api.js";
import { count, duration, percent } from "../formats.js";
import { Pending, useJson } from "../loader.js";
import { ProviderSeries } from "./provider_series.js";
import { SparkLine } from "./spark_line.js";

const [POLL_MS, FIGURES_POLL_MS] = [2000, 30_000];
const MAX_POINTS = 150;
/** Spans of time: their length, and that of a step, in seconds. */
const SPANS = { hour: [3600, 300], day: [86_400, 900], week: [604_800, 3600], month: [2_678_400, 21_600] };

/** Keep the last calls in flight of each account while the view is open: the server does not. */
function useSeries(data) {
  const series = useRef(new Map());
  useEffect(() => {
    for (const provider of data?.data ?? []) {
      provider.accounts.forEach((account, number) => {
        const name = `${provider.id} ${number}`;
        const points = series.current.get(name) ?? [];
        series.current.set(name, [...points, account.in_flight].slice(-MAX_POINTS));
      });
    }
  }, [data]);
  return series.current;
}

function Left({ left }) {
  const parts = [];
  for (const name of ["requests", "tokens"]) {
    const { limit, remaining, reset_s: reset } = left[name];
    if (remaining === null) continue;
    parts.push(html`<span key=${name}>${count(remaining)}${limit ? ` of ${count(limit)}` : ""} ${name}${reset ? `, full in ${duration(reset * 1000)}` : ""} ${limit && html`<meter min="0" max=${limit} value=${remaining} aria-label="${name} left"></meter>`}</span>`);
  }
  return parts.length ? html`<p class="left"><b>${left.model ?? "all models"}</b> ${parts}</p>` : null;
}

function Account({ account, points, limits, isOnly }) {
  const own = isOnly ? "Lately" : account.limit_group ? `Group ${account.limit_group}` : "The server's key";
  const name = account.own_keys === null ? own : `${count(account.own_keys)} callers' own keys`;
  const { recent } = account;
  const set = Object.entries(limits).filter(([, value]) => typeof value === "number").map(([limit, value]) => `${limit.replaceAll("_", " ")} ${count(value)}`);
  return html`<div class="account"><h3>${name}</h3>
    <dl class="figures">
      <div><dt>in flight</dt><dd>${count(account.in_flight)}${account.concurrency ? ` of ${count(account.concurrency)}` : ""}</dd></div>
      <div><dt>waiting</dt><dd>${count(account.waiting)}</dd></div>
      <div><dt>calls</dt><dd>${count(recent.calls)}</dd></div>
      <div><dt>errors</dt><dd>${percent(recent.error_rate)}</dd></div>
      <div><dt>median</dt><dd>${duration(recent.median_ms)}</dd></div>
      <div><dt>p95</dt><dd>${duration(recent.p95_ms)}</dd></div>
      <div><dt>first token</dt><dd>${duration(recent.median_ttft_ms)}</dd></div>
      <div class="over-time"><dt>in flight, so far</dt><dd><${SparkLine} values=${points ?? []} label="Calls in flight since this view was opened" /></dd></div>
    </dl>
    ${account.circuits.map((circuit) => html`<p class="notice" key=${`circuit ${circuit.model}`}>${circuit.model ?? "Everything"} has failed ${circuit.failures} times in a row (${circuit.reason.replaceAll("_", " ")}); ${circuit.probe_in_s === null ? "a call is trying it now" : `it is tried again in ${duration(circuit.probe_in_s * 1000)}`}.</p>`)}
    ${account.pauses.map((pause) => html`<p class="notice" key=${pause.model}>${pause.model ?? "Everything"} waits ${duration(pause.seconds_left * 1000)}: ${pause.reason.replaceAll("_", " ")}</p>`)}
    ${account.reported_limits.map((left) => html`<${Left} key=${left.model} left=${left} />`)}
    ${Object.keys(recent.failures).length > 0 && html`<p class="notes">${Object.entries(recent.failures).map(([kind, number]) => `${kind.replaceAll("_", " ")} ${count(number)}`).join(" · ")}</p>`}
    ${set.length > 0 && html`<p class="quiet">Limits set here: ${set.join(", ")}</p>`}
  </div>`;
}

/** Return the path of a span's figures. It changes with each step, and so has them fetched anew. */
function toPath(span) {
  const [length, step] = SPANS[span];
  const from = Math.floor(Date.now() / 1000 / step) * step - length + step;
  return `/v1/providers/figures?step_s=${step}&from=${new Date(from * 1000).toISOString().replace(/\.\d+/, "")}`;
}

export function Providers() {
  const { data, error, reload } = useJson("/v1/providers", POLL_MS);
  const series = useSeries(data);
  const [span, setSpan] = useState("day");
  const { data: figures, error: unknown } = useJson(toPath(span), FIGURES_POLL_MS);
  const steps = new Map((figures?.data ?? []).map((one) => [one.provider, one.steps]));
  const ready = (data?.data ?? []).filter((provider) => provider.ready);
  const waiting = (data?.data ?? []).filter((provider) => !provider.ready);
  return html`<section class="view"><header class="view-head"><h1>Providers</h1>${data && html`<p class="quiet">Calls of the last ${duration(data.window_s * 1000)}; fetched every ${POLL_MS / 1000} s.</p>`}
      <form class="filters" onSubmit=${(event) => event.preventDefault()}><label>Over time <select value=${span} onChange=${(event) => setSpan(event.target.value)}>${Object.keys(SPANS).map((name) => html`<option key=${name} value=${name}>last ${name}</option>`)}</select></label></form></header>
    ${unknown && html`<p class="notice">${unknown.code === "store_off" ? "Figures over time need the store, which is off here." : unknown.message}</p>`}
    ${figures?.in_memory && html`<p class="quiet">Figures over time begin with the start of the server: its store is in memory. FANOUT_STORE names a file.</p>`}
    ${error && html`<${Pending} error=${error} reload=${reload} />`}
    ${!data && !error && html`<${Pending} />`}
    <div class="cards">${ready.map((provider) => html`<article class="card" key=${provider.id}><h2>${provider.id}</h2><p class="quiet">${provider.host ?? "inside Fanout"}</p>
      ${provider.accounts.map((account, number) => html`<${Account} key=${number} account=${account} limits=${provider.limits} points=${series.get(`${provider.id} ${number}`)} isOnly=${provider.accounts.length === 1} />`)}
      ${figures && html`<h3>Over time${key.value ? ", your own calls" : ""}</h3>${steps.has(provider.id) ? html`<${ProviderSeries} provider=${provider.id} figures=${figures} steps=${steps.get(provider.id)} />` : html`<p class="quiet">No call in the last ${span}.</p>`}`}</article>`)}</div>
    ${waiting.length > 0 && html`<h2 class="section">Not ready</h2><ul class="plain">${waiting.map((provider) => html`<li key=${provider.id}><b>${provider.id}</b> <span class="quiet">needs ${provider.missing.join(" and ")}</span>${provider.key_page && html` <a class="key-page" href=${provider.key_page} target="_blank" rel="noreferrer" aria-label="Make a key for ${provider.id}">make a key</a>`}</li>`)}</ul>`}
  </section>`;
}
