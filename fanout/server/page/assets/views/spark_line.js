import { html } from "../vendor/preact.js";

/** A small line of values over time; null leaves a gap. */
export function SparkLine({ values, label }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return html`<span class="quiet">–</span>`;
  const top = Math.max(...known, 1e-9);
  const step = 100 / Math.max(values.length - 1, 1);
  let pen = "M";
  const path = values.map((value, number) => {
    if (value === null) return ((pen = "M"), "");
    const point = `${pen}${(number * step).toFixed(1)} ${(23 - (value / top) * 21).toFixed(1)}`;
    pen = "L";
    return point;
  });
  return html`<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${label}><path d=${path.join(" ")} /></svg>`;
}
