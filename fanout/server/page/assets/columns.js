// The answers of a run side by side, and what can be done with all of them.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { key } from "./api.js";
import { ColumnView } from "./column.js";
import { CopyButton } from "./copy_button.js";
import { plural } from "./formats.js";
import { layout, showsMarkdown } from "./store.js";
import { toCurl, toJson, toPython, toText } from "./snippets.js";

const LAYOUTS = { columns: "Columns", grid: "Grid", stacked: "Stacked" };

function Toolbar({ run, onAgain, onAdd }) {
  const body = run.request.value;
  const isRunning = run.isRunning.value;
  return html`<div class="toolbar" role="toolbar" aria-label="All answers">
    <div class="segments" role="group" aria-label="Layout">
      ${Object.entries(LAYOUTS).map(([name, title]) => html`<button key=${name} aria-pressed=${layout.value === name} onClick=${() => (layout.value = name)}>${title}</button>`)}
    </div>
    <label class="switch"><input type="checkbox" checked=${showsMarkdown.value} onChange=${(event) => (showsMarkdown.value = event.target.checked)} /> Markdown</label>
    <span class="grow"></span>
    ${body && html`<button class="quiet-button" onClick=${onAdd}>Add a model</button>`}
    ${body && html`<button class="quiet-button" disabled=${isRunning} onClick=${onAgain}>Run again</button>`}
    <details class="menu">
      <summary>Copy</summary>
      <div class="menu-items">
        <${CopyButton} text=${() => toText(run)} label="Copy all as text">Text<//>
        <${CopyButton} text=${() => toJson(run)} label="Copy all as JSON">JSON<//>
        ${body && html`<${CopyButton} text=${() => toCurl(body, location.origin, key.value)} label="Copy as curl">curl<//>`}
        ${body && html`<${CopyButton} text=${() => toPython(body, location.origin, key.value)} label="Copy as Python">Python<//>`}
        ${run.ids.value.length > 0 && html`<${CopyButton} text=${() => location.href} label="Copy the address">Address<//>`}
      </div>
    </details>
  </div>`;
}

function Continuation({ from, onSend, onClose }) {
  const [text, setText] = useState("");
  const box = useRef();
  useEffect(() => box.current.focus(), []);
  const submit = (event) => {
    event.preventDefault();
    if (text.trim()) onSend(text);
  };
  const keys = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && submit(event);
  return html`<form class="continuation" onSubmit=${submit} onKeyDown=${keys}>
    <label class="field"><span>${from ? `Continue for all models with the answer of ${from.place.label}` : "Continue with each model's own answer"}</span>
      <textarea id="continuation" ref=${box} rows="2" dir="auto" value=${text} onInput=${(event) => setText(event.target.value)}></textarea></label>
    <button class="quiet-button" type="button" onClick=${onClose}>Cancel</button>
    <button class="run" disabled=${!text.trim()}>Send</button>
  </form>`;
}

/** `onContinue(text, column)`: with the answer of one column, or of each (`null`). */
export function Columns({ run, onAgain, onAdd, onContinue }) {
  const [base, setBase] = useState(null);
  const [continued, setContinued] = useState(undefined);
  const columns = run.columns.value;
  const error = run.error.value;
  const isRunning = run.isRunning.value;
  const failed = columns.filter((column) => column.state.value === "failed").length;
  return html`<section class="answers" aria-label="Answers">
    ${columns.length > 0 && html`<${Toolbar} run=${run} onAgain=${onAgain} onAdd=${onAdd} />`}
    ${run.connection.value && html`<p class="notice" role="status">${run.connection}</p>`}
    ${error && html`<div class="failure" role="alert"><p>${error.message}</p>${error.isLost && html`<p class="advice">Run it again.</p>`}</div>`}
    ${!run.hasTexts && html`<p class="notice">The texts of this run are not kept: the server's history holds figures only. With FANOUT_HISTORY=full it keeps requests and answers too.</p>`}
    <div class="columns ${layout.value}" style=${{ "--count": columns.length }}>
      ${columns.map((column) => html`<${ColumnView} key=${column} column=${column} base=${base} run=${run} onBase=${() => setBase(base === column ? null : column)} onContinue=${() => setContinued(column)} />`)}
    </div>
    ${columns.length > 1 && !isRunning && continued === undefined && failed < columns.length && run.request.value &&
    html`<p class="after"><button class="quiet-button" onClick=${() => setContinued(null)}>Continue with all ${plural(columns.length, "answer")}</button></p>`}
    ${continued !== undefined && html`<${Continuation} from=${continued} onClose=${() => setContinued(undefined)} onSend=${(text) => onContinue(text, continued)} />`}
  </section>`;
}
