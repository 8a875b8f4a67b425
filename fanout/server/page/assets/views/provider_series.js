// One provider's calls, failures and times over time, as the server keeps them; each figure with its table.
import { html } from "../vendor/preact.js";
import { cost, count, duration, moment, percent, plural } from "../formats.js";
import { DataTable } from "./data_table.js";

const HEIGHT = 40;

/** Return a place for every step of a report; null where no call ended. */
function spread(figures, steps) {
  const first = Date.parse(figures.from);
  const places = Array(Math.round((Date.parse(figures.to) - first) / 1000 / figures.step_s)).fill(null);
  for (const step of steps) places[Math.round((Date.parse(step.start) - first) / 1000 / figures.step_s)] = step;
  return places;
}

const sum = (steps, value) => steps.reduce((total, step) => total + value(step), 0);
const failuresOf = (step) => sum(Object.values(step.failures), (number) => number);
const most = (steps, value) => steps.reduce((top, step) => Math.max(top, value(step) ?? 0), 0);

/** A bar for each step; `parts(step)` are its pieces `{ from, to, className }` in units of `top`. */
function Bars({ name, top, shown, places, parts, label }) {
  const level = (value) => HEIGHT - (value / top) * HEIGHT;
  return html`<div class="step-bars"><div class="bars-head"><span>${name}</span><span>${shown}</span></div>
    <svg viewBox="0 0 ${places.length} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${label}>
      ${places.map((step, place) => step && parts(step).map(({ from, to, className }) => to > from && html`<rect class=${className} x=${place + 0.1} width="0.8" y=${level(to).toFixed(2)} height=${Math.max(level(from) - level(to), 0.8).toFixed(2)} />`))}
    </svg></div>`;
}

const COLUMNS = [
  { name: "from", value: (step) => step.start, show: (step) => moment(step.start) },
  { name: "calls", isNumber: true, value: (step) => step.calls, show: (step) => count(step.calls) },
  { name: "failures", value: (step) => Object.entries(step.failures).map(([kind, number]) => `${kind.replaceAll("_", " ")} ${number}`).join(", ") || "–" },
  { name: "error rate", isNumber: true, value: (step) => step.error_rate, show: (step) => percent(step.error_rate) },
  { name: "refused for limits", isNumber: true, value: (step) => step.rate_limits, show: (step) => count(step.rate_limits) },
  { name: "wait p95 ms", isNumber: true, value: (step) => step.p95_wait_ms, show: (step) => count(step.p95_wait_ms) },
  { name: "median ms", isNumber: true, value: (step) => step.median_ms, show: (step) => count(step.median_ms) },
  { name: "p95 ms", isNumber: true, value: (step) => step.p95_ms, show: (step) => count(step.p95_ms) },
  { name: "first token ms", isNumber: true, value: (step) => step.median_ttft_ms, show: (step) => count(step.median_ttft_ms) },
  { name: "tokens", isNumber: true, value: (step) => step.total_tokens, show: (step) => count(step.total_tokens) },
  { name: "cost", isNumber: true, value: (step) => step.cost_usd, show: (step) => `${cost(step.cost_usd)}${step.cost_unknown ? ` + ${step.cost_unknown} unknown` : ""}` },
];

export function ProviderSeries({ provider, figures, steps }) {
  const places = spread(figures, steps);
  const calls = sum(steps, (step) => step.calls);
  const failed = sum(steps, failuresOf);
  const refused = sum(steps, (step) => step.rate_limits);
  const [slowest, longest] = [most(steps, (step) => step.p95_ms), most(steps, (step) => step.p95_wait_ms)];
  return html`<div class="series">
    <${Bars} name="calls" shown="${plural(calls, "call")}${failed ? `, ${count(failed)} failed` : ""}" top=${Math.max(most(steps, (step) => step.calls), 1)} places=${places}
      label="Calls over time: ${count(calls)}, of which ${count(failed)} failed"
      parts=${(step) => [{ from: failuresOf(step), to: step.calls, className: "answered" }, { from: 0, to: failuresOf(step), className: "bad" }]} />
    ${slowest > 0 && html`<${Bars} name="time, median to p95" shown="at most ${duration(slowest)}" top=${slowest} places=${places}
      label="Times over time: 95 % of the answers of a step took at most ${duration(slowest)}"
      parts=${(step) => [{ from: 0, to: step.median_ms ?? 0, className: "answered" }, { from: step.median_ms ?? 0, to: step.p95_ms ?? 0, className: "soft" }]} />`}
    ${(refused > 0 || longest > 0) && html`<${Bars} name="waits for limits, p95" shown="at most ${duration(longest)}${refused ? `; ${count(refused)} refused` : ""}" top=${Math.max(longest, 1)} places=${places}
      label="Waits for limits over time: at most ${duration(longest)}; the provider refused ${plural(refused, "attempt")}"
      parts=${(step) => [{ from: 0, to: step.p95_wait_ms ?? 0, className: "warn" }]} />`}
    <div class="bars-head" aria-hidden="true"><span>${moment(figures.from)}</span><span>${moment(figures.to)}</span></div>
    <details class="more"><summary>Table</summary><${DataTable} title="${provider} over time" file="${provider}-over-time" columns=${COLUMNS} rows=${[...steps].reverse()} /></details>
  </div>`;
}
