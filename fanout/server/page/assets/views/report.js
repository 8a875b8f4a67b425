// The report of a job: a card for each model, and each figure with its table.
import { html, useState } from "../vendor/preact.js";
import { DataTable } from "./data_table.js";
import { cost, count, decimal, duration, percent } from "../formats.js";
import { IntervalPlot, namePair } from "./interval_plot.js";
import { Pending, useJson } from "../loader.js";
import { CostPlot, RepeatPlot, WinMap } from "./report_figures.js";
import { save } from "./save.js";
import { withCode } from "../with_code.js";

const interval = (estimate, format) => (estimate.value === null ? "–" : estimate.low === null ? format(estimate.value) : `${format(estimate.value)} (${format(estimate.low)} to ${format(estimate.high)})`);
const score = (value) => decimal(value, 3);
const toRow = (label, estimate) => ({ label, value: estimate.value, low: estimate.low, high: estimate.high });

function Card({ model, metric }) {
  const own = metric?.models.find((one) => one.model === model.model);
  const failures = Object.entries(model.failures).map(([kind, number]) => `${kind.replaceAll("_", " ")} ${number}`);
  return html`<article class="card"><h2>${model.model}</h2>
    ${own && html`<p class="headline">${score(own.mean.value)} <small>${own.mean.low === null ? "" : `${score(own.mean.low)} to ${score(own.mean.high)}`}</small></p><p>${own.verdict}${own.best_rank ? html` <span class="quiet">Rank ${own.best_rank === own.worst_rank ? own.best_rank : `${own.best_rank} to ${own.worst_rank}`}</span>` : ""}</p>`}
    <dl class="figures">
      <div><dt>answered</dt><dd>${count(model.answered)} of ${count(model.ended)}</dd></div>
      <div><dt>cost of 1,000 rows</dt><dd>${cost(model.cost_per_1000_items_usd.value)}</dd></div>
      <div><dt>first token p50 / p95</dt><dd>${model.ttft_ms.n ? `${duration(model.ttft_ms.p50)} / ${duration(model.ttft_ms.p95)}` : "not measured"}</dd></div>
      <div><dt>total p50 / p95</dt><dd>${duration(model.total_ms.p50)} / ${duration(model.total_ms.p95)}</dd></div>
    </dl>
    ${failures.length > 0 && html`<p class="notes">${failures.join(" · ")}</p>`}
  </article>`;
}

const SCORE_COLUMNS = [
  { name: "model", value: (one) => one.model },
  { name: "mean", isNumber: true, value: (one) => one.mean.value, show: (one) => interval(one.mean, score) },
  { name: "low", isNumber: true, value: (one) => one.mean.low, show: (one) => score(one.mean.low) },
  { name: "high", isNumber: true, value: (one) => one.mean.high, show: (one) => score(one.mean.high) },
  { name: "rank", value: (one) => (one.best_rank === null ? "–" : one.best_rank === one.worst_rank ? one.best_rank : `${one.best_rank} to ${one.worst_rank}`) },
  { name: "verdict", value: (one) => one.verdict },
];
const PAIR_COLUMNS = [
  { name: "A", value: (pair) => pair.a },
  { name: "B", value: (pair) => pair.b },
  { name: "A − B", isNumber: true, value: (pair) => pair.difference.value, show: (pair) => interval(pair.difference, score) },
  { name: "p", isNumber: true, title: "Adjusted for all pairs of this metric", value: (pair) => pair.p_adjusted, show: (pair) => (pair.p_adjusted !== null && pair.p_adjusted < 0.001 ? "< 0.001" : decimal(pair.p_adjusted)) },
  { name: "test", value: (pair) => pair.p_method },
  { name: "wins", isNumber: true, value: (pair) => pair.wins },
  { name: "ties", isNumber: true, value: (pair) => pair.ties },
  { name: "losses", isNumber: true, value: (pair) => pair.losses },
];

const REPEAT_COLUMNS = (repeats) => [{ name: "model", value: (one) => one.model }, ...Array.from({ length: repeats }, (_, repeat) => ({ name: `repeat ${repeat + 1}`, isNumber: true, value: (one) => one.by_repeat[repeat] ?? null, show: (one) => score(one.by_repeat[repeat] ?? null) }))];

/** What the means hide: how they differ by repeat, and what they cost. */
function Beside({ metric, models, file }) {
  const costs = new Map(models.map((model) => [model.model, model.cost_per_1000_items_usd]));
  const points = metric.models.map((one) => ({ label: one.model, score: one.mean, cost: costs.get(one.model) })).filter((point) => point.cost);
  const repeats = Math.max(...metric.models.map((one) => one.by_repeat.length));
  return html`${repeats > 1 && html`<h3>By repeat: lines that cross are chance, not rank</h3>
      <${RepeatPlot} title="${metric.name}: mean of each repeat" lines=${metric.models.map((one) => ({ label: one.model, values: one.by_repeat }))} format=${score} />
      <${DataTable} title="${metric.name} by repeat" file="${file}-${metric.name}-repeats" columns=${REPEAT_COLUMNS(repeats)} rows=${metric.models} />`}
    ${new Set(points.map((point) => point.cost.value)).size > 1 && html`<h3>Against the cost of 1,000 rows: the line joins those that nothing cheaper beats</h3>
      <${CostPlot} title="${metric.name} against cost" points=${points} isHigherBetter=${metric.is_higher_better} formatCost=${cost} formatScore=${score} />`}`;
}

function Metric({ metric, models, file }) {
  return html`<section class="metric"><h2>${metric.name}</h2><p><b>${metric.verdict}</b></p>
    <p class="quiet">${count(metric.n)} rows that every model has${metric.is_higher_better ? "" : "; less is better"}.</p>
    <${IntervalPlot} title="${metric.name}: mean with 95 % interval" rows=${metric.models.map((one) => toRow(one.model, one.mean))} format=${score} />
    <${DataTable} title="${metric.name} by model" file="${file}-${metric.name}" columns=${SCORE_COLUMNS} rows=${metric.models} />
    ${metric.pairs.length > 0 && html`<h3>Differences of every two models on the same rows</h3><${IntervalPlot} title="${metric.name}: paired differences" zero=${true} rows=${metric.pairs.map((pair) => ({ ...toRow(`${pair.a} − ${pair.b}`, pair.difference), short: namePair(pair.a, pair.b) }))} format=${score} />
    <${DataTable} title="${metric.name}: every two models on the same rows" file="${file}-${metric.name}-pairs" columns=${PAIR_COLUMNS} rows=${metric.pairs} />
    <${WinMap} title="${metric.name}: wins" names=${metric.models.map((one) => one.model)} pairs=${metric.pairs} />`}
    <${Beside} metric=${metric} models=${models} file=${file} />
  </section>`;
}

function Preferences({ one, file }) {
  const columns = [
    { name: "model", value: (row) => row.model },
    { name: "rating", isNumber: true, value: (row) => row.rating, show: (row) => decimal(row.rating, 0) },
    { name: "low", isNumber: true, value: (row) => row.low, show: (row) => decimal(row.low, 0) },
    { name: "high", isNumber: true, value: (row) => row.high, show: (row) => decimal(row.high, 0) },
    { name: "comparisons", isNumber: true, value: (row) => row.comparisons, show: (row) => count(row.comparisons) },
  ];
  const pairs = [
    { name: "A", value: (row) => row.a },
    { name: "B", value: (row) => row.b },
    { name: "A wins", isNumber: true, value: (row) => row.win_rate.value, show: (row) => interval(row.win_rate, percent) },
    { name: "wins", isNumber: true, value: (row) => row.wins },
    { name: "ties", isNumber: true, value: (row) => row.ties },
    { name: "losses", isNumber: true, value: (row) => row.losses },
    { name: "both bad", isNumber: true, value: (row) => row.both_bad },
  ];
  const title = one.source === "votes" ? "Votes" : `Judge ${one.source}`;
  return html`<section class="metric"><h2>${title}</h2><p><b>${one.verdict}</b></p>
    <${IntervalPlot} title="${title}: rating with 95 % interval" rows=${one.ratings.map((row) => ({ label: row.model, value: row.rating, low: row.low, high: row.high }))} format=${(value) => decimal(value, 0)} />
    <${DataTable} title="${title}: ratings" file="${file}-${one.source}" columns=${columns} rows=${one.ratings} />
    <${DataTable} title="${title}: every two models" file="${file}-${one.source}-pairs" columns=${pairs} rows=${one.pairs} />
    ${one.notes.map((note) => html`<p class="quiet" key=${note}>${withCode(note)}</p>`)}</section>`;
}

const JUDGE_COLUMNS = [
  { name: "judge", value: (row) => row.name },
  { name: "model", value: (row) => row.model },
  { name: "questions", isNumber: true, value: (row) => row.questions },
  { name: "unread", isNumber: true, value: (row) => row.unread },
  { name: "agreement with people (κ)", isNumber: true, value: (row) => row.kappa, show: (row) => decimal(row.kappa, 2) },
  { name: "consistent", isNumber: true, value: (row) => row.consistency, show: (row) => percent(row.consistency) },
  { name: "bias to the first", isNumber: true, value: (row) => row.bias, show: (row) => decimal(row.bias, 2) },
  { name: "note", value: (row) => row.note ?? "–" },
];

const COST_COLUMNS = [
  { name: "model", value: (row) => row.model },
  { name: "mean", isNumber: true, value: (row) => row.cost_per_1000_items_usd.value, show: (row) => cost(row.cost_per_1000_items_usd.value) },
  { name: "low", isNumber: true, value: (row) => row.cost_per_1000_items_usd.low, show: (row) => cost(row.cost_per_1000_items_usd.low) },
  { name: "high", isNumber: true, value: (row) => row.cost_per_1000_items_usd.high, show: (row) => cost(row.cost_per_1000_items_usd.high) },
];
const PERCENTILES = ["p5", "p25", "p50", "p75", "p95"];

function Times({ models, name, title, file }) {
  const columns = [{ name: "model", value: (row) => row.model }, { name: "answers", isNumber: true, value: (row) => row[name].n, show: (row) => count(row[name].n) }, ...PERCENTILES.map((part) => ({ name: part, isNumber: true, value: (row) => row[name][part], show: (row) => duration(row[name][part]) }))];
  const rows = models.map((model) => ({ label: model.model, value: model[name].p50, low: model[name].p5, high: model[name].p95, inner: [model[name].p25, model[name].p75] }));
  return html`<${IntervalPlot} title="${title}: median, quarters, 5 to 95 %" rows=${rows.filter((row) => row.inner[0] !== null)} format=${duration} />
    <${DataTable} title=${title} file="${file}-${name}" columns=${columns} rows=${models} />`;
}

const FORMATS = { html: "HTML with all answers", markdown: "Markdown", csv: "CSV" };

/** The whole report as a file. */
function Files({ id }) {
  const [error, setError] = useState(null);
  const take = (format) => save(`/v1/jobs/${id}/report?format=${format}`, `${id}-report.${format === "markdown" ? "md" : format}`).then(() => setError(null), setError);
  return html`<p class="actions-row"><span class="quiet">Save the report:</span>${Object.entries(FORMATS).map(([format, title]) => html`<button key=${format} class="quiet-button" onClick=${() => take(format)}>${title}</button>`)}
    ${error && html`<span class="failure" role="alert">${error.message}</span>`}</p>`;
}

export function Report({ id }) {
  const { data, error, reload } = useJson(`/v1/jobs/${id}/report`);
  const [chosen, setChosen] = useState(0);
  if (!data) return html`<${Pending} error=${error} reload=${reload} />`;
  return html`<div class="report"><h1>${data.job.name ?? "Report"}</h1>
    <p class="quiet">${count(data.job.ended)} of ${count(data.job.calls)} calls have ended; ${data.policy}.</p>
    <${Files} id=${id} />
    ${data.stopping?.sentence && html`<p><b>${data.stopping.sentence}</b></p>`}
    ${data.metrics.length > 1 && html`<label class="switch">Cards by <select value=${chosen} onChange=${(event) => setChosen(Number(event.target.value))}>${data.metrics.map((metric, number) => html`<option key=${metric.name} value=${number}>${metric.name}</option>`)}</select></label>`}
    <div class="cards">${data.models.map((model) => html`<${Card} key=${model.model} model=${model} metric=${data.metrics[chosen]} />`)}</div>
    ${data.metrics.map((metric) => html`<${Metric} key=${metric.name} metric=${metric} models=${data.models} file=${id} />`)}
    ${data.fusions.length > 0 && html`<section class="metric"><h2>Fusions</h2><ul>${data.fusions.map((one) => html`<li key=${one.sentence}>${withCode(one.sentence)}</li>`)}</ul></section>`}
    ${data.preferences.map((one) => html`<${Preferences} key=${one.source} one=${one} file=${id} />`)}
    ${data.judges.length > 0 && html`<${DataTable} title="Judges: how far they can be trusted" file="${id}-judges" columns=${JUDGE_COLUMNS} rows=${data.judges} />`}
    <section class="metric"><h2>Times</h2>
      ${data.models.some((model) => model.ttft_ms.n) && html`<${Times} models=${data.models} name="ttft_ms" title="Time to first token" file=${id} /><${Times} models=${data.models} name="tpot_ms" title="Time for each token after the first" file=${id} />`}
      <${Times} models=${data.models} name="total_ms" title="Time of the whole answer" file=${id} /></section>
    <section class="metric"><h2>Cost</h2>
      <${IntervalPlot} title="Cost of 1,000 rows" rows=${data.models.map((model) => toRow(model.model, model.cost_per_1000_items_usd))} format=${cost} />
      <${DataTable} title="Cost of 1,000 rows, in US dollars" file="${id}-cost" columns=${COST_COLUMNS} rows=${data.models} /></section>
    ${data.notes.length > 0 && html`<section class="metric"><h2>Before you trust a figure</h2><ul>${data.notes.map((note) => html`<li key=${note}>${withCode(note)}</li>`)}</ul></section>`}
    ${data.methods.length > 0 && html`<p class="quiet">Methods: ${data.methods.join("; ")}</p>`}
  </div>`;
}
