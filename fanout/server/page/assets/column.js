// One answer beside the others: its name, state, text, figures, and what to do if it failed.
import { html } from "./vendor/preact.js";
import { advise } from "./advice.js";
import { findModel } from "./catalogue.js";
import { clock } from "./column_state.js";
import { CopyButton } from "./copy_button.js";
import { Difference } from "./difference.js";
import { cost, count, duration, rate } from "./formats.js";
import { Markdown } from "./markdown.js";
import { showsMarkdown } from "./store.js";
import { StreamedText } from "./streamed_text.js";
import { withCode } from "./with_code.js";

const STATES = { waiting: "waiting", answering: "answering", done: "answered", failed: "failed", stopped: "stopped" };

const Figure = ({ name, title, children }) => html`<div title=${title}><dt>${name}</dt><dd>${children}</dd></div>`;

/** Return the pieces per second since the first has come; null until there is a second to go by. */
function findSpeed(column, now) {
  const seconds = column.firstMs.value === null ? 0 : (now - column.began - column.firstMs.value) / 1000;
  return seconds > 1 && column.isRunning ? (column.pieces - 1) / seconds : null;
}

function Figures({ column }) {
  const end = column.end.value;
  const isRunning = column.isRunning;
  const now = isRunning ? clock.value : 0;
  const measured = end?.timing?.ttft_ms ?? column.firstMs.value;
  // Counts up until the first piece has come, so that a slow model is seen to be slow while it is.
  const first = measured ?? (isRunning ? now - column.began : null);
  const tokens = end ? end.usage?.completion_tokens : column.pieces || null;
  const speed = end ? end.timing?.tokens_per_second : findSpeed(column, now);
  return html`<dl class="figures">
    <${Figure} name="first token" title="Time to the first token">${duration(first === null ? null : Math.max(0, first))}<//>
    <${Figure} name="total" title="Time of the whole answer">${duration(end ? end.timing?.total_ms : isRunning ? Math.max(0, now - column.began) : null)}<//>
    <${Figure} name="tokens" title=${end ? "Tokens of the answer" : "Pieces that have come so far"}>${!end && tokens ? "≈ " : ""}${count(tokens)}<//>
    <${Figure} name="speed" title=${end ? "Tokens per second" : "Pieces per second since the first"}>${!end && speed !== null ? "≈ " : ""}${rate(speed)}<//>
    <${Figure} name="cost" title=${end?.cost_source ? `Price from ${end.cost_source}` : "No price is known"}>${cost(end?.cost_usd)}<//>
  </dl>`;
}

/** Say what a fused answer is made from, and what all of it cost. */
function describeFusion({ members, cost_usd: usd }) {
  const used = members.filter((member) => !member.left_out).map((member) => member.label);
  const left = members.filter((member) => member.left_out).map((member) => `without ${member.label} (${member.left_out})`);
  return [`made from ${used.join(", ") || "nothing"}`, ...left, usd === null ? "cost of all unknown" : `${cost(usd)} for all`];
}

function Notes({ end }) {
  const notes = end?.fusion ? describeFusion(end.fusion) : [];
  if (end?.finish_reason === "length") notes.push("cut at the limit of tokens");
  if (end?.refusal) notes.push(`refused: ${end.refusal}`);
  if (end?.other_content?.length) notes.push(`also: ${end.other_content.join(", ")}`);
  if (end?.ignored_parameters?.length) notes.push(`ignored: ${end.ignored_parameters.join(", ")}`);
  for (const [name, { asked, sent }] of Object.entries(end?.adjusted_parameters ?? {})) notes.push(`${name}: ${sent} instead of ${asked}`);
  if (end?.timing?.attempts > 1) notes.push(`${end.timing.attempts} attempts`);
  // Its place is kept while it is empty, so that nothing moves when the answer ends.
  return html`<p class="notes" title=${notes.join(" · ")}>${notes.join(" · ")}</p>`;
}

function Failure({ column }) {
  const error = column.end.value?.error;
  if (!error) return null;
  const isStopped = column.state.value === "stopped";
  return html`<div class=${isStopped ? "stop-note" : "failure"} tabindex="0" role="group" aria-label=${isStopped ? "Stopped" : "Failure"}>
    <p>${withCode(error.message ?? error.code)}</p>
    ${!isStopped && html`<p class="advice">${withCode(advise(error, findModel(column.place.model)))}</p>`}
  </div>`;
}

export function ColumnView({ column, base, run, onContinue, onBase }) {
  const { label, model, sample, samples } = column.place;
  const state = column.state.value;
  const name = `${label}${samples > 1 ? ` · ${sample + 1}` : ""}${column.place.is_member ? " (member)" : ""}`;
  const canCompare = base && base !== column && !column.isRunning && column.text;
  return html`<article class="column ${state}" aria-label="Answer of ${name}">
    <header>
      <h2 title=${model}>${name}</h2>
      <span class="state" data-state=${state}>${STATES[state]}</span>
      ${column.isRunning && html`<button class="quiet-button" onClick=${() => run.stop(column)} aria-label="Stop ${name}">Stop</button>`}
    </header>
    ${column.earlier?.length ? html`<details class="earlier"><summary>${column.earlier.length} earlier messages</summary>${column.earlier.map((message) => html`<p class=${message.role} dir="auto"><b>${message.role}</b> ${message.content}</p>`)}</details>` : null}
    <div class="body">${canCompare
      ? html`<${Difference} before=${base.text} after=${column.text} base=${base.place.label} />`
      : showsMarkdown.value && !column.isRunning
        ? html`<${Markdown} text=${column.text} />`
        : html`<${StreamedText} column=${column} label="Text of ${name}" />`}
    <${Failure} column=${column} /></div>
    <footer>
      <${Figures} column=${column} />
      <${Notes} end=${column.end.value} />
      <div class="actions">
        <${CopyButton} text=${() => column.text} label="Copy the answer of ${name}">Copy<//>
        <button class="quiet-button" aria-pressed=${base === column} disabled=${column.isRunning || !column.text} onClick=${onBase} aria-label="Show how the others differ from ${name}">${base === column ? "Differences on" : "Differences"}</button>
        <button class="quiet-button" disabled=${column.isRunning || !column.text} onClick=${onContinue} aria-label="Continue with the answer of ${name}">Continue</button>
      </div>
    </footer>
  </article>`;
}
