// The view History: past requests, the newest first, each with its address.
import { html, useEffect, useState } from "../vendor/preact.js";
import { ApiError, getJson } from "../api.js";
import { cost, count, duration, moment, plural } from "../formats.js";
import { Pending } from "../loader.js";

function Row({ past }) {
  const names = past.entries.map((entry) => entry.label).join(", ");
  return html`<li>
    <a class="row-link" href="#/runs/${past.id}">
      <span class="when">${moment(past.created)}</span>
      <span class="what">${names}</span>
      <span class="state" data-state=${past.failed ? (past.answered ? "stopped" : "failed") : "done"}>${past.answered} answered${past.failed ? `, ${past.failed} failed` : ""}</span>
      <span class="number">${count(past.usage.total_tokens)} tokens</span>
      <span class="number">${cost(past.cost_usd)}</span>
      <span class="number">${duration(past.timing.total_ms)}</span>
    </a>
  </li>`;
}

export function History() {
  const [list, setList] = useState(null);
  const [error, setError] = useState(null);
  const [filters, setFilters] = useState({ model: "", failed: "" });
  const load = async (after) => {
    const query = new URLSearchParams({ limit: 50, ...(after ? { after } : {}), ...Object.fromEntries(Object.entries(filters).filter(([, value]) => value)) });
    try {
      const page = await getJson(`/v1/comparisons?${query}`);
      setList((before) => ({ rows: after ? [...before.rows, ...page.data] : page.data, next: page.has_more ? page.last_id : null }));
      setError(null);
    } catch (caught) {
      if (!(caught instanceof ApiError)) throw caught;
      setError(caught);
    }
  };
  useEffect(() => {
    load();
  }, [filters]);
  return html`<section class="view"><header class="view-head"><h1>History</h1>
      <form class="filters" onSubmit=${(event) => event.preventDefault()}>
        <label>Model <input type="search" value=${filters.model} onChange=${(event) => setFilters({ ...filters, model: event.target.value.trim() })} /></label>
        <label>Calls <select value=${filters.failed} onChange=${(event) => setFilters({ ...filters, failed: event.target.value })}><option value="">all</option><option value="true">with failures</option><option value="false">without failures</option></select></label>
      </form></header>
    ${error && html`<${Pending} error=${error} reload=${() => load()} />`}
    ${!list && !error && html`<${Pending} />`}
    ${list && (list.rows.length ? html`<ul class="rows">${list.rows.map((past) => html`<${Row} key=${past.id} past=${past} />`)}</ul>` : html`<p class="quiet">No request yet.</p>`)}
    ${list?.next && html`<p class="after"><button class="quiet-button" onClick=${() => load(list.next)}>More than ${plural(list.rows.length, "request")}: show older ones</button></p>`}
  </section>`;
}
