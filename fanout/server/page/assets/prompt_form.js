// The prompt, what goes with it, and the button that sends it.
import { html, useEffect, useRef } from "./vendor/preact.js";
import { loadError, loadModels, models } from "./catalogue.js";
import { chosen, parameters, prompt, REQUEST_FIELDS, samples, system, toSent } from "./composer.js";
import { EntryList } from "./entry_list.js";
import { plural } from "./formats.js";
import { ParameterFields } from "./parameter_fields.js";

const EXAMPLES = ["The return statement", "Explain recursion to a child in two sentences.", "Answer as JSON: three facts about the Moon."];

export function PromptForm({ isRunning, onRun, onStop }) {
  const box = useRef();
  useEffect(() => box.current?.focus({ preventScroll: true }), []);
  const used = Object.keys(toSent(parameters.value)).length + (system.value.trim() ? 1 : 0);
  const calls = chosen.value.length * samples.value;
  const keys = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      onRun();
    }
  };
  return html`<section class="composer" aria-label="Prompt" onKeyDown=${keys}>
    <textarea id="prompt" ref=${box} rows="3" dir="auto" aria-label="Prompt" placeholder="Ask several models at once…" value=${prompt} onInput=${(event) => (prompt.value = event.target.value)}></textarea>
    ${!prompt.value && html`<p class="examples">Try ${EXAMPLES.map((text) => html`<button class="example" key=${text} onClick=${() => ((prompt.value = text), box.current.focus())}>${text}</button>`)}</p>`}
    <details class="more">
      <summary>System message and parameters${used ? html` <small>${plural(used, "setting")}</small>` : null}</summary>
      <label class="field"><span>System message</span><textarea id="system" rows="2" dir="auto" value=${system} onInput=${(event) => (system.value = event.target.value)}></textarea></label>
      <${ParameterFields} id="all" fields=${REQUEST_FIELDS} values=${parameters.value} onChange=${(values) => (parameters.value = values)} />
    </details>
    <${EntryList} />
    ${loadError.value && html`<p class="failure">The models cannot be listed: ${loadError}. <button class="quiet-button" onClick=${loadModels}>Try again</button></p>`}
    ${models.value && !models.value.some((model) => model.ready) && html`<p class="notes">No model is ready: run <code>fanout init</code> where the server runs.</p>`}
    <div class="run-row">
      <label class="samples">Samples <input id="samples" type="number" min="1" max="128" step="1" value=${samples} onInput=${(event) => (samples.value = Math.max(1, Math.min(128, Math.round(Number(event.target.value)) || 1)))} /></label>
      <span class="quiet">${calls > 1 ? plural(calls, "answer") : ""}</span>
      ${isRunning && html`<button class="stop" onClick=${onStop}>Stop all</button>`}
      <button class="run" id="run" disabled=${!prompt.value.trim() || !chosen.value.length} onClick=${onRun}>Run <kbd aria-hidden="true">Ctrl ↵</kbd></button>
    </div>
  </section>`;
}
