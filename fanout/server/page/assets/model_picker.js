// The choice of models: a search over the catalogue, sets, and any name by hand.
import { html, useMemo, useState } from "./vendor/preact.js";
import { Dialog } from "./dialog.js";
import { isFusion, models, searchModels, sets } from "./catalogue.js";
import { cost } from "./formats.js";
import { useJson } from "./loader.js";

const MAX_SHOWN = 80;

function Price({ price }) {
  return price ? html`<span class="price" title="US dollars per million tokens, prompt / answer">${cost(price.input_usd_per_mtok)} / ${cost(price.output_usd_per_mtok)}</span>` : null;
}

function Choice({ model, keyPage, onPick }) {
  const isRetired = !model.ready && !model.missing.length;
  return html`<li>
    <button class="choice" onClick=${() => onPick(model.id)} aria-label="Add ${model.id}">
      <span class="dot ${model.ready ? "ready" : ""}" aria-hidden="true"></span>
      <span class="names"><b>${model.id}</b>${model.name === model.id ? null : html`<small>${model.name}</small>`}</span>
      <${Price} price=${model.price} />
      ${model.ready ? null : html`<small class="needs">${isRetired ? "shut down by its vendor" : `needs ${model.missing.join(" and ")}`}</small>`}
    </button>
    ${!model.ready && !isRetired && keyPage && html`<a class="key-page" href=${keyPage} target="_blank" rel="noreferrer" aria-label="Make a key for ${model.id}">make a key</a>`}
  </li>`;
}

export function ModelPicker({ onPick, onClose }) {
  const [text, setText] = useState("");
  const providers = useJson("/v1/providers").data?.data ?? [];
  const keyPages = new Map(providers.map((provider) => [provider.id, provider.key_page]));
  const found = useMemo(() => searchModels(text), [text, models.value]);
  const foundSets = sets.value.filter((set) => set.id.includes(text.toLowerCase().trim()));
  const name = text.trim();
  const isPattern = name.includes("*") && !isFusion(name);
  const readyFound = found.filter((model) => model.ready);
  const submit = (event) => {
    event.preventDefault();
    if (isPattern) readyFound.forEach((model) => onPick(model.id));
    else if (found.length) onPick(found[0].id);
    else if (name) onPick(name);
  };
  return html`<${Dialog} title="Add a model" onClose=${onClose}>
    <form onSubmit=${submit}>
      <input type="search" class="search" placeholder="Search, or openai/* for many" aria-label="Search models" value=${text} onInput=${(event) => setText(event.target.value)} />
    </form>
    ${isPattern && readyFound.length > 0 && html`<button class="choice" onClick=${submit}>Add all ${readyFound.length} that are ready</button>`}
    ${foundSets.length > 0 && html`<h3>Sets</h3><ul class="choices">
      ${foundSets.map((set) => html`<li key=${set.id}><button class="choice" onClick=${() => onPick(set.id)} aria-label="Add the set ${set.id}"><span class="names"><b>${set.id}</b><small>${set.models.join(", ")}</small></span></button></li>`)}
    </ul>`}
    <h3>${found.length} models</h3>
    <ul class="choices">${found.slice(0, MAX_SHOWN).map((model) => html`<${Choice} key=${model.id} model=${model} keyPage=${keyPages.get(model.provider)} onPick=${onPick} />`)}</ul>
    ${found.length > MAX_SHOWN && html`<p class="quiet">${found.length - MAX_SHOWN} more: search to find them.</p>`}
    ${!found.length && name && !isPattern && html`<button class="choice" onClick=${submit}>Add “${name}” as it stands: ${"<provider>/<id>"} names any model of a provider, and ${"fusion(a, b by c)"} one answer that c makes of a's and b's</button>`}
    <p class="quiet">Models that need a key: set the variable where the server runs and start it again, or run <code>fanout init</code>, which asks for keys and tries them.</p>
  <//>`;
}
