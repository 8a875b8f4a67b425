// The view Jobs: their list, and below each address one job: live, its results, its report.
import { html } from "../vendor/preact.js";
import { cost, count, moment, percent } from "../formats.js";
import { Job } from "./job.js";
import { Pending, useJson } from "../loader.js";
import { Report } from "./report.js";
import { Results } from "./results.js";

const COMMAND = `curl ${location.origin}/v1/jobs -H 'Content-Type: application/json' -d '{"items": [{"prompt": "The return statement"}], "models": "embedded", "parameters": {"max_tokens": 20}}'`;
/** States of a job in the colours of an answer's. */
export const COLOURS = { running: "answering", queued: "waiting", loading: "waiting", cancelling: "stopped", done: "done", cancelled: "stopped", expired: "stopped", stopped: "failed" };

function Row({ job }) {
  const { progress } = job;
  return html`<li><a class="row-link" href="#/jobs/${job.id}">
    <span class="when">${moment(job.created_at)}</span>
    <span class="what">${job.name ?? (job.labels.join(", ") || job.id)}</span>
    <span class="state" data-state=${COLOURS[job.state]}>${job.state}</span>
    <span class="number">${count(progress.ended)} of ${count(job.calls)} calls</span>
    <meter min="0" max=${job.calls || 1} value=${progress.ended} aria-label="${percent(job.calls ? progress.ended / job.calls : null)} ended"></meter>
    <span class="number">${cost(progress.cost_usd)}</span>
  </a></li>`;
}

function JobList() {
  const { data, error, reload } = useJson("/v1/jobs?limit=100", 3000);
  return html`<section class="view"><header class="view-head"><h1>Jobs</h1></header>
    ${error && html`<${Pending} error=${error} reload=${reload} />`}
    ${!data && !error && html`<${Pending} />`}
    ${data && (data.data.length
      ? html`<ul class="rows">${data.data.map((job) => html`<${Row} key=${job.id} job=${job} />`)}</ul>`
      : html`<p>A job sends many prompts to many models. Start one with <code>fanout batch run</code>, or:</p><pre class="command" tabindex="0">${COMMAND}</pre>`)}
  </section>`;
}

export function Jobs({ path, query }) {
  const [, , id, part] = path.split("/");
  if (!id) return html`<${JobList} />`;
  const tabs = { "": "Progress", results: "Results", report: "Report" };
  return html`<section class="view"><p class="crumbs"><a href="#/jobs">Jobs</a> / <span>${id}</span></p>
    <nav class="tabs" aria-label="Job">${Object.entries(tabs).map(([name, title]) => html`<a key=${name} href="#/jobs/${id}${name && `/${name}`}" aria-current=${(part ?? "") === name ? "page" : undefined}>${title}</a>`)}<a href="#/blind/${id}">Vote blind</a></nav>
    ${part === "results" ? html`<${Results} id=${id} query=${query} />` : part === "report" ? html`<${Report} id=${id} />` : html`<${Job} id=${id} />`}
  </section>`;
}
