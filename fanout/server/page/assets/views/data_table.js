// A table with its own CSV file.
import { html } from "../vendor/preact.js";
import { saveFile } from "./save.js";

const quote = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  // Spreadsheets compute what begins so, whoever has written it.
  const safe = /^[=+\-@\t]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

function download(name, columns, rows) {
  const lines = [columns.map((column) => column.name), ...rows.map((row) => columns.map((column) => column.value(row)))];
  saveFile(new Blob([lines.map((line) => line.map(quote).join(",")).join("\r\n")], { type: "text/csv" }), `${name}.csv`);
}

/** `columns`: `{ name, value(row), show(row)?, isNumber?, title? }`. */
export function DataTable({ title, file, columns, rows, empty = "Nothing yet." }) {
  return html`<figure class="table">
    <figcaption><h3>${title}</h3>${file && rows.length > 0 && html`<button class="quiet-button" onClick=${() => download(file, columns, rows)} aria-label="${title}: as CSV">CSV</button>`}</figcaption>
    ${rows.length === 0
      ? html`<p class="quiet">${empty}</p>`
      : html`<div class="scroll" tabindex="0" role="group" aria-label=${title}><table>
          <thead><tr>${columns.map((column) => html`<th key=${column.name} scope="col" class=${column.isNumber ? "number" : ""} title=${column.title}>${column.name}</th>`)}</tr></thead>
          <tbody>${rows.map((row, number) => html`<tr key=${number}>${columns.map((column) => html`<td key=${column.name} class=${column.isNumber ? "number" : ""}>${(column.show ?? column.value)(row)}</td>`)}</tr>`)}</tbody>
        </table></div>`}
  </figure>`;
}
