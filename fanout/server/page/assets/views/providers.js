// The view Providers: limits, what is left of them, pauses, and how calls have done, as they change.
import { html, useEffect, useRef } from "../vendor/preact.js";
import { count, duration, percent } from "../formats.js";
import { Pending, useJson } from "../loader.js";
import { SparkLine } from "./spark_line.js";

const POLL_MS = 2000;
const MAX_POINTS = 150;

/** Keep the last values of each account while the view is open. */
function useSeries(data) {
  const series = useRef(new Map());
  useEffect(() => {
    for (const provider of data?.data ?? []) {
      provider.accounts.forEach((account, number) => {
        const name = `${provider.id} ${number}`;
        const points = series.current.get(name) ?? [];
        series.current.set(name, [...points, { flying: account.in_flight, ms: account.recent.median_ms, errors: account.recent.error_rate }].slice(-MAX_POINTS));
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

function Account({ account, points, limits }) {
  const name = account.own_keys === null ? (account.limit_group ? `group ${account.limit_group}` : "the server's key") : `${count(account.own_keys)} callers' own keys`;
  const { recent } = account;
  const set = Object.entries(limits).filter(([, value]) => typeof value === "number").map(([limit, value]) => `${limit.replaceAll("_", " ")} ${count(value)}`);
  return html`<div class="account"><h3>${name}</h3>
    <dl class="figures">
      <div><dt>in flight</dt><dd>${count(account.in_flight)}${account.concurrency ? ` of ${count(account.concurrency)}` : ""}</dd></div>
      <div><dt>waiting</dt><dd>${count(account.waiting)}</dd></div>
      <div><dt>calls lately</dt><dd>${count(recent.calls)}</dd></div>
      <div><dt>errors</dt><dd>${percent(recent.error_rate)}</dd></div>
      <div><dt>median</dt><dd>${duration(recent.median_ms)}</dd></div>
      <div><dt>p95</dt><dd>${duration(recent.p95_ms)}</dd></div>
      <div><dt>first token</dt><dd>${duration(recent.median_ttft_ms)}</dd></div>
      <div class="over-time"><dt>median over time</dt><dd><${SparkLine} values=${(points ?? []).map((point) => point.ms)} label="Median duration since this view was opened" /></dd></div>
      <div class="over-time"><dt>in flight over time</dt><dd><${SparkLine} values=${(points ?? []).map((point) => point.flying)} label="Calls in flight since this view was opened" /></dd></div>
    </dl>
    ${account.pauses.map((pause) => html`<p class="notice" key=${pause.model}>${pause.model ?? "Everything"} waits ${duration(pause.seconds_left * 1000)}: ${pause.reason.replaceAll("_", " ")}</p>`)}
    ${account.reported_limits.map((left) => html`<${Left} key=${left.model} left=${left} />`)}
    ${Object.keys(recent.failures).length > 0 && html`<p class="notes">${Object.entries(recent.failures).map(([kind, number]) => `${kind.replaceAll("_", " ")} ${count(number)}`).join(" · ")}</p>`}
    ${set.length > 0 && html`<p class="quiet">Limits set here: ${set.join(", ")}</p>`}
  </div>`;
}

export function Providers() {
  const { data, error, reload } = useJson("/v1/providers", POLL_MS);
  const series = useSeries(data);
  const ready = (data?.data ?? []).filter((provider) => provider.ready);
  const waiting = (data?.data ?? []).filter((provider) => !provider.ready);
  return html`<section class="view"><header class="view-head"><h1>Providers</h1>${data && html`<p class="quiet">Calls of the last ${duration(data.window_s * 1000)}; fetched every ${POLL_MS / 1000} s.</p>`}</header>
    ${error && html`<${Pending} error=${error} reload=${reload} />`}
    ${!data && !error && html`<${Pending} />`}
    <div class="cards">${ready.map((provider) => html`<article class="card" key=${provider.id}><h2>${provider.id}</h2><p class="quiet">${provider.host ?? "inside Fanout"}</p>
      ${provider.accounts.map((account, number) => html`<${Account} key=${number} account=${account} limits=${provider.limits} points=${series.get(`${provider.id} ${number}`)} />`)}</article>`)}</div>
    ${waiting.length > 0 && html`<h2 class="section">Not ready</h2><ul class="plain">${waiting.map((provider) => html`<li key=${provider.id}><b>${provider.id}</b> <span class="quiet">needs ${provider.missing.join(" and ")}</span></li>`)}</ul>`}
  </section>`;
}
