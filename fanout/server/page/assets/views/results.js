// The results of a job: a row for each item, a column for each model. Rows are fetched and drawn as they are scrolled to.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { ApiError, getJson, key } from "../api.js";
import { CopyButton } from "../copy_button.js";
import { Dialog } from "../dialog.js";
import { cost, count, decimal, duration, plural } from "../formats.js";
import { Pending, useJson } from "../loader.js";
import { go } from "../router.js";

const [ROW_PX, PAGE_ROWS, MAX_PAGES, MARGIN_ROWS] = [132, 50, 24, 6];
/** Greatest height that browsers lay out exactly; more rows than fit are reached through filters. */
const MAX_PX = 15_000_000;
const SHOWS = { all: "All", errors: "Errors", different: "Different", regressions: "Regressions", disagreement: "Disagreement" };
const SORTS = { input: "input order", score_difference: "score difference", length: "length", latency: "latency", cost: "cost" };

/** Requests for rows at once: pages that are scrolled past meanwhile are never fetched, so that what is in sight comes first. */
const [MAX_LOADS, RETRY_MS] = [2, 2000];

/** Rows by number, fetched page by page; of pages long out of sight, none is kept. */
function useRows(id, search) {
  const [, redraw] = useState(0);
  const store = useRef(null);
  const name = `${id}?${search}#${key.value}`;
  // The scorers stay while rows are fetched anew: a field that came and went would move those beside it.
  if (store.current?.name !== name) store.current = { name, rows: new Map(), asked: new Set(), wanted: [], running: 0, total: null, scorers: store.current?.scorers ?? [], error: null };
  const kept = store.current;
  const load = async (offset, limit = PAGE_ROWS) => {
    const query = new URLSearchParams(search);
    query.set("offset", offset);
    query.set("limit", limit);
    try {
      const page = await getJson(`/v1/jobs/${id}/items?${query}`);
      page.data.forEach((row, place) => kept.rows.set(offset + place, row));
      Object.assign(kept, { total: page.total, scorers: page.scorers, error: null });
      // Long rows come fewer at a time.
      const rest = Math.min(limit, page.total - offset) - page.data.length;
      if (page.data.length && rest > 0) await load(offset + page.data.length, rest);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Nothing more is fetched until it is tried again: by the reader, or soon where the connection is lost.
      kept.error = error;
      kept.asked.delete(offset);
      if (!error.status) setTimeout(retry, RETRY_MS);
    }
    redraw((turn) => turn + 1);
  };
  const retry = () => {
    kept.error = null;
    fetchWanted();
  };
  const fetchWanted = async () => {
    const offset = kept.running < MAX_LOADS && !kept.error ? kept.wanted.find((one) => !kept.asked.has(one)) : undefined;
    if (offset === undefined) return;
    kept.asked.add(offset);
    if (kept.asked.size > MAX_PAGES) {
      const oldest = kept.asked.values().next().value;
      kept.asked.delete(oldest);
      for (let row = oldest; row < oldest + PAGE_ROWS; row++) kept.rows.delete(row);
    }
    kept.running += 1;
    await load(offset).finally(() => (kept.running -= 1));
    fetchWanted();
  };
  const want = (first, last) => {
    kept.wanted = [];
    for (let page = Math.floor(first / PAGE_ROWS); page <= Math.floor(last / PAGE_ROWS); page++) kept.wanted.push(page * PAGE_ROWS);
    for (let turn = 0; turn < MAX_LOADS; turn++) fetchWanted();
  };
  return { ...kept, want, retry };
}

const toText = (input) => (typeof input.prompt === "string" ? input.prompt : input.messages ? input.messages.map((message) => `${message.role}: ${typeof message.content === "string" ? message.content : JSON.stringify(message.content)}`).join("\n") : JSON.stringify(input.body ?? input.values ?? input));

function describe(result) {
  const parts = [result.error_kind ?? result.finish_reason, result.completion_tokens === null ? null : `${count(result.completion_tokens)} tokens`, duration(result.total_ms)];
  if (result.attempts > 1) parts.push(plural(result.attempts, "attempt"));
  if (result.cached_from) parts.push("reused");
  return parts.filter(Boolean).join(" · ");
}

function Cell({ results, scorer, onOpen }) {
  const [shown, setShown] = useState(0);
  const result = results[Math.min(shown, results.length - 1)];
  if (!result) return html`<div class="cell" role="cell"><span class="quiet">not ended</span></div>`;
  const score = scorer ? result.scores[scorer]?.value : undefined;
  return html`<div class="cell ${result.error_kind ? "bad" : ""}" role="cell">
    ${results.length > 1 && html`<div class="chips">${results.map((one, number) => html`<button key=${number} aria-pressed=${number === shown} class=${one.error_kind ? "bad" : ""} aria-label="Repeat ${number + 1}" onClick=${() => setShown(number)}>${number + 1}</button>`)}</div>`}
    <button class="cell-text" dir="auto" onClick=${() => onOpen(result)} aria-label="Row ${result.item}, ${result.label}: open">${(result.error_kind ? result.error_message : result.text)?.slice(0, 600) ?? ""}</button>
    <p class="cell-meta">${score === undefined || score === null ? "" : html`<b class="score">${decimal(score, 2)}</b> · `}${describe(result)}</p>
  </div>`;
}

function Details({ result, input, onClose }) {
  const facts = {
    state: result.error_kind ? `${result.error_kind}: ${result.error_message}` : "answered",
    "finish reason": result.finish_reason,
    tokens: `${count(result.prompt_tokens)} in, ${count(result.completion_tokens)} out`,
    time: `${duration(result.total_ms)} in all, first token ${duration(result.ttft_ms)}, waited ${duration(result.queued_ms)}`,
    attempts: result.attempts,
    cost: cost(result.cost_usd),
    "served by": [result.provider, result.upstream_model].filter(Boolean).join(" / "),
    "reused from": result.cached_from,
    reference: result.reference,
  };
  return html`<${Dialog} title="Row ${result.item} · ${result.label}${result.repeat ? ` · repeat ${result.repeat + 1}` : ""}" onClose=${onClose} isWide=${true}>
    <h3>Input</h3><div class="plain-text" dir="auto" tabindex="0">${toText(input)}</div>
    <h3>Answer <${CopyButton} text=${() => result.text ?? ""} label="Copy the answer">Copy<//></h3><div class="plain-text" dir="auto" tabindex="0">${result.text ?? ""}</div>
    <dl class="facts">${Object.entries(facts).filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${typeof value === "object" ? JSON.stringify(value) : value}</dd></div>`)}
      ${Object.entries(result.scores).map(([name, score]) => html`<div key=${name}><dt>${name}</dt><dd>${decimal(score.value)}${score.explanation ? ` – ${score.explanation}` : ""}</dd></div>`)}</dl>
    <p><${CopyButton} text=${() => location.href} label="Copy the link to this cell">Copy the link<//></p>
  <//>`;
}

function Filters({ values, labels, scorers, total, onChange }) {
  const set = (name) => (event) => onChange({ ...values, [name]: event.target.value });
  const isRegex = "regex" in values;
  const given = values.search ?? values.regex ?? "";
  // As it is typed: rows that come meanwhile draw the box anew.
  const [draft, setDraft] = useState(given);
  useEffect(() => setDraft(given), [given]);
  // Read from the form: the text may have been typed, and not yet taken over, when the box is ticked.
  const search = (event) => {
    const { text, pattern } = event.target.form.elements;
    onChange({ ...values, search: undefined, regex: undefined, [pattern.checked ? "regex" : "search"]: text.value });
  };
  return html`<form class="filters results-filters" onSubmit=${(event) => event.preventDefault()}>
    <div class="segments" role="group" aria-label="Rows">${Object.entries(SHOWS).map(([name, title]) => html`<button type="button" key=${name} aria-pressed=${(values.show ?? "all") === name} onClick=${() => onChange({ ...values, show: name })}>${title}</button>`)}</div>
    <label class="switch">Baseline <select value=${values.baseline ?? labels[0]} onChange=${set("baseline")}>${labels.map((label) => html`<option key=${label}>${label}</option>`)}</select></label>
    ${scorers.length > 0 && html`<label class="switch">Score <select value=${values.scorer ?? scorers[0]} onChange=${set("scorer")}>${scorers.map((name) => html`<option key=${name}>${name}</option>`)}</select></label>`}
    <label class="switch">Sort <select value=${values.sort ?? "input"} onChange=${set("sort")}>${Object.entries(SORTS).map(([name, title]) => html`<option key=${name} value=${name}>${title}</option>`)}</select></label>
    <input type="search" name="text" placeholder="Search rows and answers" aria-label="Search rows and answers" value=${draft} onInput=${(event) => setDraft(event.target.value)} onChange=${search} />
    <label class="switch"><input type="checkbox" name="pattern" checked=${isRegex} onChange=${search} /> pattern</label>
    <span class="quiet" role="status">${total === null ? "…" : plural(total, "row")}</span>
  </form>`;
}

function Table({ labels, rows, total, scorer, want, onOpen }) {
  const box = useRef();
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(700);
  const first = Math.max(0, Math.floor(top / ROW_PX) - MARGIN_ROWS);
  const last = Math.min(total - 1, Math.ceil((top + height) / ROW_PX) + MARGIN_ROWS);
  useEffect(() => {
    const sizes = new ResizeObserver(() => box.current && setHeight(box.current.clientHeight));
    sizes.observe(box.current);
    return () => sizes.disconnect();
  }, []);
  useEffect(() => {
    if (last >= first) want(first, last);
  });
  const drawn = [];
  for (let number = first; number <= last; number++) drawn.push(number);
  const entries = labels.map((_, entry) => entry);
  return html`<div class="results" ref=${box} role="table" aria-label="Results" aria-rowcount=${total + 1} tabindex="0" style=${{ "--models": labels.length }} onScroll=${(event) => setTop(event.target.scrollTop)}>
    <div class="result-row head" role="row" aria-rowindex="1"><div role="columnheader" class="item">Row</div>${labels.map((label) => html`<div key=${label} role="columnheader" class="cell">${label}</div>`)}</div>
    <div class="result-space" role="rowgroup" style=${{ height: `${Math.min(total * ROW_PX, MAX_PX)}px` }}>
      ${drawn.map((number) => {
        const row = rows.get(number);
        return html`<div class="result-row" role="row" key=${number} aria-rowindex=${number + 2} style=${{ transform: `translateY(${number * ROW_PX}px)` }}>
          <div class="item" role="rowheader"><b>${row ? row.custom_id ?? row.item : "…"}</b><span dir="auto">${row ? toText(row.input).slice(0, 400) : ""}</span></div>
          ${row && entries.map((entry) => html`<${Cell} key=${entry} results=${row.results.filter((result) => result.entry === entry)} scorer=${scorer} onOpen=${onOpen} />`)}
        </div>`;
      })}
    </div>
  </div>`;
}

export function Results({ id, query }) {
  const { data: job, error } = useJson(`/v1/jobs/${id}`);
  const values = Object.fromEntries([...query].filter(([name]) => !["item", "entry", "repeat"].includes(name)));
  const search = new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();
  const { rows, total, scorers, want, retry, error: failed } = useRows(id, search);
  const [item, entry, repeat] = ["item", "entry", "repeat"].map((name) => query.get(name));
  const opened = useJson(item === null ? null : `/v1/jobs/${id}/items?offset=${Number(item)}&limit=1`).data?.data[0];
  useEffect(() => {
    want(0, PAGE_ROWS - 1);
  }, [search]);
  if (!job) return html`<${Pending} error=${error} />`;
  const labels = job.labels;
  const address = (extra) => {
    const next = new URLSearchParams(Object.entries({ ...values, ...extra }).filter(([, value]) => value !== undefined && value !== ""));
    return `/jobs/${id}/results${next.size ? `?${next}` : ""}`;
  };
  const change = (next) => go(`/jobs/${id}/results?${new URLSearchParams(Object.entries(next).filter(([name, value]) => value !== undefined && (value !== "" || name === "regex")))}`, { replace: true });
  const result = opened && Number(item) === opened.item ? opened.results.find((one) => one.entry === Number(entry) && one.repeat === Number(repeat)) : null;
  return html`<div><h1>${job.name ?? "Results"}</h1>
    <${Filters} values=${values} labels=${labels} scorers=${scorers} total=${total} onChange=${change} />
    ${failed && html`<${Pending} error=${failed} reload=${retry} />`}
    ${total === 0 && html`<p class="quiet">No row is left by these filters.</p>`}
    ${total > 0 && html`<${Table} key=${search} labels=${labels} rows=${rows} total=${total} scorer=${values.scorer ?? scorers[0]} want=${want} onOpen=${(one) => go(address({ item: one.item, entry: one.entry, repeat: one.repeat }))} />`}
    ${result && html`<${Details} result=${result} input=${opened.input} onClose=${() => go(address({}), { replace: true })} />`}
  </div>`;
}
