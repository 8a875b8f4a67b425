// The models of the next request, each with a name and parameters of its own if wanted.
import { html, useState } from "./vendor/preact.js";
import { findModel, isFusion } from "./catalogue.js";
import { chosen, FIELDS } from "./composer.js";
import { Dialog } from "./dialog.js";
import { ModelPicker } from "./model_picker.js";
import { ParameterFields } from "./parameter_fields.js";
import { entries } from "./store.js";

/** Most members of a fusion, and the longest name of an entry. */
const MAX_MEMBERS = 16;
const MAX_NAME_CHARS = 256;

const replaceAt = (list, place, entry) => list.map((other, number) => (number === place ? entry : other));

function OwnParameters({ place, onClose }) {
  const entry = chosen.value[place];
  const change = (fields) => {
    entries.value = replaceAt(chosen.value, place, { ...entry, ...fields });
  };
  return html`<${Dialog} title="Only for ${entry.model}" onClose=${onClose}>
    <label class="field"><span>Name of its column</span><input type="text" maxlength="256" placeholder=${entry.model} value=${entry.label ?? ""} onInput=${(event) => change({ label: event.target.value })} /></label>
    <${ParameterFields} id="own-${place}" fields=${FIELDS} values=${entry.parameters ?? {}} onChange=${(parameters) => change({ parameters })} />
    <p class="quiet">What is left empty is as for all models.</p>
  <//>`;
}

export function EntryList() {
  const [isPicking, setPicking] = useState(false);
  const [edited, setEdited] = useState(null);
  const list = chosen.value;
  const names = list.map((entry) => entry.model).filter((name) => !isFusion(name));
  const maker = names.find((name) => findModel(name));
  const written = `fusion(${names.join(", ")} by ${maker})`;
  const fusion = maker && names.length > 1 && names.length <= MAX_MEMBERS && written.length <= MAX_NAME_CHARS ? written : null;
  const pick = (model) => {
    entries.value = [...chosen.value, { model }];
  };
  return html`<div class="entries" role="group" aria-label="Models">
    ${list.map((entry, place) => {
      const own = Object.values(entry.parameters ?? {}).filter((value) => value !== "").length;
      const model = findModel(entry.model);
      return html`<span class="entry" key=${`${place} ${entry.model}`}>
        <span class="dot ${model && !model.ready ? "" : "ready"}" aria-hidden="true"></span>
        <button class="entry-name" onClick=${() => setEdited(place)} title="Name and parameters of its own" aria-label="${entry.label || entry.model}: name and parameters of its own">${entry.label || entry.model}${own ? html` <small>+${own}</small>` : null}</button>
        <button class="entry-remove" aria-label="Remove ${entry.label || entry.model}" onClick=${() => (entries.value = list.filter((_, number) => number !== place))}>✕</button>
      </span>`;
    })}
    ${fusion && html`<button class="add" id="add-fusion" title="One more answer, made of the others' answers by ${maker}" onClick=${() => pick(fusion)}>+ Fuse them</button>`}
    <button class="add" id="add-model" onClick=${() => setPicking(true)}>+ Add a model</button>
    ${isPicking && html`<${ModelPicker} onPick=${pick} onClose=${() => setPicking(false)} />`}
    ${edited !== null && list[edited] && html`<${OwnParameters} place=${edited} onClose=${() => setEdited(null)} />`}
  </div>`;
}
