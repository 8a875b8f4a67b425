// The view Compare: a prompt, the models, and their answers as they come.
import { html, signal, useEffect, useState } from "./vendor/preact.js";
import { Columns } from "./columns.js";
import { isFusion } from "./catalogue.js";
import { buildBody, chosen, prompt, takeRequest } from "./composer.js";
import { ModelPicker } from "./model_picker.js";
import { PromptForm } from "./prompt_form.js";
import { go } from "./router.js";
import { Run } from "./run.js";

/** The run that is shown; it goes on while the reader looks at another view. */
const current = signal(null);

function show(run) {
  current.value?.leave();
  current.value = run;
  run.onNamed = (ids) => current.value === run && go(`/runs/${ids.join(",")}`, { replace: location.hash.startsWith("#/runs/") && run.ids.value.length > 1 });
}

function start(body) {
  // Nobody waits for the answers before: they end now, here and at their providers.
  if (current.value?.isRunning.value) current.value.stop();
  const run = new Run();
  show(run);
  run.add(body);
}

/** Return the conversation that has led to a column's answer, with it. */
function toMessages(run, column) {
  return [...(column.earlier ?? []), { role: "user", content: run.request.value.prompt }, { role: "assistant", content: column.text }];
}

function continueRun(run, text, column) {
  const body = run.request.value;
  const list = run.columns.value.filter((other) => other.place.sample === 0 && !other.place.is_member && (column || other.text));
  const model = list.map((other) => {
    const written = body.model[other.place.entry] ?? {};
    const { label, model: name } = other.place;
    if (isFusion(written.model)) return { ...written, messages: toMessages(run, column ?? other) };
    const own = written.model === name ? written : {};
    return { ...own, model: name, ...(label === name ? {} : { label }), messages: toMessages(run, column ?? other) };
  });
  start({ ...body, model, prompt: text });
}

export function Compare({ ids }) {
  const [isPicking, setPicking] = useState(false);
  useEffect(() => {
    if (!ids.length || current.value?.ids.value.join() === ids.join()) return;
    const run = new Run();
    show(run);
    run.open(ids).then(() => run.request.value && !prompt.value && takeRequest(run.request.value));
  }, [ids.join()]);
  const run = current.value;
  const submit = () => prompt.value.trim() && chosen.value.length && start(buildBody(prompt.value, chosen.value));
  const again = () => {
    takeRequest(run.request.value);
    start(run.request.value);
  };
  const add = (model) => {
    setPicking(false);
    run.add({ ...run.request.value, model: [{ model }] });
  };
  return html`<div class="compare">
    <h1 class="hidden">Compare models</h1>
    <${PromptForm} isRunning=${run?.isRunning.value} onRun=${submit} onStop=${() => run.stop()} />
    ${run && html`<${Columns} key=${run} run=${run} onAgain=${again} onAdd=${() => setPicking(true)} onContinue=${(text, column) => continueRun(run, text, column)} />`}
    ${isPicking && html`<${ModelPicker} onPick=${add} onClose=${() => setPicking(false)} />`}
  </div>`;
}
