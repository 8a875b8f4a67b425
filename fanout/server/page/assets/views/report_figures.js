// Figures of a report that show two things at once: cost against score, repeats, and every two models.
import { html } from "../vendor/preact.js";
import { percent } from "../formats.js";
import { findTicks, PlotBox, shorten } from "./interval_plot.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP] = [720, 280, 64, 150, 34, 12];
const COLOURS = 6;

/** Return a scale from values to pixels, with its ticks. */
function makeScale(values, from, to) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const at = (value) => from + ((value - low) / (high - low)) * (to - from);
  return { at, ticks: findTicks(low, high) };
}

const within = ({ value, low, high }) => [value, low ?? value, high ?? value];

/** Return places for labels near theirs, so that none covers another. */
function spreadLabels(places, gap = 16) {
  const order = places.map((_, number) => number).sort((one, other) => places[one] - places[other]);
  const spread = [...places];
  order.forEach((number, rank) => {
    if (rank) spread[number] = Math.max(spread[number], spread[order[rank - 1]] + gap);
  });
  return spread;
}

function Axes({ x, y, formatX, formatY }) {
  return html`<g>
    ${x.ticks.map((tick) => html`<g key="x${tick}" class="tick"><line x1=${x.at(tick)} x2=${x.at(tick)} y1=${TOP} y2=${HEIGHT - BOTTOM} /><text x=${x.at(tick)} y=${HEIGHT - BOTTOM + 20} text-anchor="middle">${formatX(tick)}</text></g>`)}
    ${y.ticks.map((tick) => html`<g key="y${tick}" class="tick"><line x1=${LEFT} x2=${WIDTH - RIGHT} y1=${y.at(tick)} y2=${y.at(tick)} /><text x=${LEFT - 8} y=${y.at(tick) + 4} text-anchor="end">${formatY(tick)}</text></g>`)}
  </g>`;
}

/** Return the points that no other beats in both cost and score, cheapest first. */
export function findPareto(points, isHigherBetter) {
  const sign = isHigherBetter ? 1 : -1;
  const order = [...points].sort((one, other) => one.cost.value - other.cost.value || sign * (other.score.value - one.score.value));
  let best = -Infinity;
  return order.filter((point) => sign * point.score.value > best && ((best = sign * point.score.value), true));
}

/** `points`: `{ label, cost, score }`, each an estimate with its interval. */
export function CostPlot({ title, points, isHigherBetter, formatCost, formatScore }) {
  const known = points.filter((point) => point.cost.value !== null && point.score.value !== null);
  if (known.length < 2) return null;
  const x = makeScale(known.flatMap((point) => within(point.cost)), LEFT + 14, WIDTH - RIGHT - 14);
  const y = makeScale(known.flatMap((point) => within(point.score)), HEIGHT - BOTTOM - 14, TOP + 14);
  const line = findPareto(known, isHigherBetter).map((point) => `${x.at(point.cost.value)},${y.at(point.score.value)}`);
  const labels = spreadLabels(known.map((point) => y.at(point.score.value)));
  const sentence = known.map((point) => `${point.label}: ${formatScore(point.score.value)} for ${formatCost(point.cost.value)}`).join("; ");
  return html`<${PlotBox} title=${title}><svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}. ${sentence}">
    <${Axes} x=${x} y=${y} formatX=${formatCost} formatY=${formatScore} />
    <polyline class="pareto" points=${line.join(" ")} />
    ${known.map(({ label, cost, score }, number) => html`<g key=${label}>
      ${cost.low !== null && html`<line class="whisker thin" x1=${x.at(cost.low)} x2=${x.at(cost.high)} y1=${y.at(score.value)} y2=${y.at(score.value)} />`}
      ${score.low !== null && html`<line class="whisker thin" x1=${x.at(cost.value)} x2=${x.at(cost.value)} y1=${y.at(score.low)} y2=${y.at(score.high)} />`}
      <circle class="dot-mark" cx=${x.at(cost.value)} cy=${y.at(score.value)} r="5" />
      <text class="label" x=${WIDTH - RIGHT + 8} y=${labels[number] + 4}>${shorten(label, 18)}</text></g>`)}
  </svg><//>`;
}

/** `lines`: `{ label, values }`, a value for each repeat. */
export function RepeatPlot({ title, lines, format }) {
  const known = lines.filter((line) => line.values.length > 1 && line.values.every((value) => value !== null));
  if (!known.length) return null;
  const x = makeScale(known[0].values.map((_, repeat) => repeat + 1), LEFT + 14, WIDTH - RIGHT - 14);
  const y = makeScale(known.flatMap((line) => line.values), HEIGHT - BOTTOM - 14, TOP + 14);
  const labels = spreadLabels(known.map((line) => y.at(line.values.at(-1))));
  const sentence = known.map((line) => `${line.label}: ${line.values.map(format).join(", ")}`).join("; ");
  return html`<${PlotBox} title=${title}><svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}. ${sentence}">
    <${Axes} x=${{ ...x, ticks: known[0].values.map((_, repeat) => repeat + 1) }} y=${y} formatX=${String} formatY=${format} />
    ${known.map((line, number) => html`<g key=${line.label} class="series-${number % COLOURS}">
      <polyline points=${line.values.map((value, repeat) => `${x.at(repeat + 1)},${y.at(value)}`).join(" ")} />
      <text class="label" x=${WIDTH - RIGHT + 8} y=${labels[number] + 4}>${shorten(line.label, 18)}</text></g>`)}
  </svg><//>`;
}

/** Of every two models the share of rows on which the one of the row is better; the darker, the more. */
export function WinMap({ title, names, pairs }) {
  if (names.length < 3) return null;
  const shares = new Map();
  for (const { a, b, wins, ties, losses } of pairs) {
    const rows = wins + ties + losses;
    if (!rows) continue;
    shares.set(`${a}\n${b}`, wins / rows);
    shares.set(`${b}\n${a}`, losses / rows);
  }
  const cell = (one, other) => {
    const share = shares.get(`${one}\n${other}`);
    return html`<td key=${other} class="number" style=${{ "--share": share === undefined ? "0%" : `${share * 60}%` }}>${one === other ? "" : percent(share)}</td>`;
  };
  return html`<figure class="table"><figcaption><h3>${title}</h3></figcaption><div class="scroll" tabindex="0" role="group" aria-label=${title}><table class="win-map">
    <thead><tr><th scope="col">better on so many rows</th>${names.map((name) => html`<th key=${name} scope="col" class="number">than ${name}</th>`)}</tr></thead>
    <tbody>${names.map((one) => html`<tr key=${one}><th scope="row">${one}</th>${names.map((other) => cell(one, other))}</tr>`)}</tbody></table></div></figure>`;
}
