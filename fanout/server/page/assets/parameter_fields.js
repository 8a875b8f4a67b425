import { html } from "./vendor/preact.js";

/** Fields for parameters; `values` are as typed, and empty means the provider's default. */
export function ParameterFields({ id, fields, values, onChange }) {
  return html`<div class="parameters">
    ${fields.map(
      ({ name, label, text, min, max, step }) => html`<label key=${name}>
        <span>${label}</span>
        <input
          id="${id}-${name}"
          type=${text ? "text" : "number"}
          min=${min}
          max=${max}
          step=${step === 1 ? 1 : "any"}
          placeholder="default"
          value=${values[name] ?? ""}
          onInput=${(event) => onChange({ ...values, [name]: event.target.value })}
        />
      </label>`,
    )}
  </div>`;
}
