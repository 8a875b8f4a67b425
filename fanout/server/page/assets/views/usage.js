// The view Usage: calls, tokens, cost and failures by account, model and day.
import { html, useState } from "../vendor/preact.js";
import { DataTable } from "./data_table.js";
import { cost, count, plural } from "../formats.js";
import { Pending, useJson } from "../loader.js";

const GROUPS = { model: "model", account: "account", provider: "provider", day: "day", "account,model": "account and model", "day,model": "day and model" };
const PERIODS = { 1: "today", 7: "7 days", 30: "30 days", 0: "all time" };
const FIELDS = { account: "account_id" };

const daysAgo = (days) => new Date(Date.now() - (days - 1) * 86_400_000).toISOString().slice(0, 10);
const sum = (rows, name) => rows.reduce((total, row) => (row[name] === null ? total : (total ?? 0) + row[name]), null);

function Bars({ rows, name }) {
  const most = Math.max(...rows.map((row) => row.requests), 1);
  return html`<ul class="bars" aria-label="Calls by ${name}">${rows.map((row) => html`<li key=${row[name]}><span>${row[name] ?? "–"}</span><meter min="0" max=${most} value=${row.requests} aria-label="${plural(row.requests, "call")}"></meter><span class="number">${count(row.requests)}</span></li>`)}</ul>`;
}

export function Usage() {
  const [group, setGroup] = useState("model");
  const [days, setDays] = useState("30");
  const from = Number(days) ? `&from=${daysAgo(Number(days))}` : "";
  const { data, error, reload } = useJson(`/v1/usage?group_by=${group}${from}`);
  const byDay = useJson(`/v1/usage?group_by=day${from}`).data;
  const names = group.split(",").map((name) => FIELDS[name] ?? name);
  const rows = data?.group_by.join() === group ? data.data : [];
  const columns = [
    ...names.map((name) => ({ name: name.replace("_id", ""), value: (row) => row[name] ?? "–" })),
    { name: "calls", isNumber: true, value: (row) => row.requests, show: (row) => count(row.requests) },
    { name: "answered", isNumber: true, value: (row) => row.answered, show: (row) => count(row.answered) },
    { name: "failures", value: (row) => Object.entries(row.failures).map(([kind, number]) => `${kind} ${number}`).join(", ") || "–" },
    { name: "prompt tokens", isNumber: true, value: (row) => row.prompt_tokens, show: (row) => count(row.prompt_tokens) },
    { name: "answer tokens", isNumber: true, value: (row) => row.completion_tokens, show: (row) => count(row.completion_tokens) },
    { name: "cost", isNumber: true, value: (row) => row.cost_usd, show: (row) => `${cost(row.cost_usd)}${row.cost_unknown ? ` + ${row.cost_unknown} unknown` : ""}` },
  ];
  return html`<section class="view"><header class="view-head"><h1>Usage</h1>
      <form class="filters" onSubmit=${(event) => event.preventDefault()}>
        <label>By <select value=${group} onChange=${(event) => setGroup(event.target.value)}>${Object.entries(GROUPS).map(([value, title]) => html`<option key=${value} value=${value}>${title}</option>`)}</select></label>
        <label>Time <select value=${days} onChange=${(event) => setDays(event.target.value)}>${Object.entries(PERIODS).map(([value, title]) => html`<option key=${value} value=${value}>${title}</option>`)}</select></label>
      </form></header>
    ${error && html`<${Pending} error=${error} reload=${reload} />`}
    ${!data && !error && html`<${Pending} />`}
    ${data && html`<dl class="figures big">
      <div><dt>calls</dt><dd>${count(sum(rows, "requests") ?? 0)}</dd></div>
      <div><dt>answered</dt><dd>${count(sum(rows, "answered") ?? 0)}</dd></div>
      <div><dt>tokens</dt><dd>${count(sum(rows, "total_tokens"))}</dd></div>
      <div><dt>cost</dt><dd>${cost(sum(rows, "cost_usd"))}</dd></div>
    </dl>
    ${byDay?.data.length > 1 && html`<h2 class="section">Calls by day</h2><${Bars} rows=${byDay.data} name="day" />`}
    <${DataTable} title="Usage by ${GROUPS[group]}" file="usage" columns=${columns} rows=${rows} empty="No call yet." />`}
  </section>`;
}
