import { html, useState } from "./vendor/preact.js";
import { keyWanted, setKey } from "./api.js";
import { loadModels } from "./catalogue.js";
import { Dialog } from "./dialog.js";

/** Asks for a key of this server, which only this tab keeps. */
export function KeyDialog() {
  const [text, setText] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (!text.trim()) return;
    setKey(text);
    loadModels();
  };
  return html`<${Dialog} title="A key for this server" onClose=${() => (keyWanted.value = null)}>
    <form onSubmit=${submit}>
      <p>${keyWanted}</p>
      <label class="field"><span>Key (one of FANOUT_API_KEYS)</span><input id="key" type="password" autocomplete="off" value=${text} onInput=${(event) => setText(event.target.value)} /></label>
      <p class="quiet">It is kept for this tab only, and sent to this server alone.</p>
      <div class="run-row"><span class="grow"></span><button class="run">Use this key</button></div>
    </form>
  <//>`;
}
