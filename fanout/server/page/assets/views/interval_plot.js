// Estimates with their intervals, drawn as lines and dots; the same figures stand in the table below.
import { html } from "../vendor/preact.js";

const [WIDTH, ROW, LEFT, PAD] = [720, 30, 190, 18];

/** Return about five round numbers between two. */
export function findTicks(low, high) {
  const raw = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) ticks.push(Number(tick.toPrecision(10)));
  return ticks;
}

const MAX_LABEL = 22;

/** Shorten a name in its middle: models of one provider differ at the end. */
export function shorten(name, most = MAX_LABEL) {
  const half = Math.floor((most - 1) / 2);
  return name.length > most ? `${name.slice(0, half)}…${name.slice(-half)}` : name;
}

/** Name a pair of models, as short as their figures need. */
export const namePair = (a, b) => `${shorten(a, 10)} − ${shorten(b, 10)}`;

/** A figure as wide as it can be read, that scrolls in what is narrower. */
export const PlotBox = ({ title, children }) => html`<div class="plot-box" tabindex="0" role="group" aria-label=${title}>${children}</div>`;

/** `rows`: `{ label, value, low, high, inner: [low, high]? }`; `zero` draws a line at 0. */
export function IntervalPlot({ title, rows, format, zero = false }) {
  const shown = rows.filter((row) => row.value !== null);
  if (!shown.length) return null;
  const values = shown.flatMap((row) => [row.value, row.low ?? row.value, row.high ?? row.value]).concat(zero ? [0] : []);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const at = (value) => LEFT + PAD + ((value - low) / (high - low)) * (WIDTH - LEFT - 2 * PAD);
  const height = shown.length * ROW + 34;
  const sentence = shown.map((row) => `${row.label}: ${format(row.value)}${row.low === null || row.low === undefined ? "" : `, ${format(row.low)} to ${format(row.high)}`}`).join("; ");
  return html`<${PlotBox} title=${title}><svg class="plot" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${title}. ${sentence}">
    ${findTicks(low, high).map((tick) => html`<g key=${tick} class="tick"><line x1=${at(tick)} x2=${at(tick)} y1="4" y2=${height - 26} /><text x=${at(tick)} y=${height - 8} text-anchor="middle">${format(tick)}</text></g>`)}
    ${zero && html`<line class="zero" x1=${at(0)} x2=${at(0)} y1="4" y2=${height - 26} />`}
    ${shown.map((row, number) => {
      const y = number * ROW + ROW / 2 + 4;
      const hasInterval = row.low !== null && row.low !== undefined;
      return html`<g key=${row.label}>
        <text class="label" x=${LEFT - 4} y=${y + 5} text-anchor="end">${row.short ?? shorten(row.label)}</text>
        ${hasInterval && html`<line class="whisker" x1=${at(row.low)} x2=${at(row.high)} y1=${y} y2=${y} />`}
        ${row.inner && html`<rect class="box" x=${at(row.inner[0])} width=${Math.max(1, at(row.inner[1]) - at(row.inner[0]))} y=${y - 7} height="14" rx="3" />`}
        <circle class="dot-mark" cx=${at(row.value)} cy=${y} r="5" />
      </g>`;
    })}
  </svg><//>`;
}
