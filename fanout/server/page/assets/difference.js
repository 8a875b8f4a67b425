// The difference of two answers: by words, or of two JSON documents by their structure.
import { html, useEffect, useState } from "./vendor/preact.js";

const LIMITS = { timeout: 300, maxEditLength: 20_000 };

function parseJson(text) {
  try {
    const value = JSON.parse(text.trim().replace(/^```(?:json)?\n?|\n?```$/g, ""));
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Return the parts of a difference; null if the texts are too different to compare within a moment. */
export function findDifference({ diffJson, diffWordsWithSpace }, before, after) {
  const [one, other] = [parseJson(before), parseJson(after)];
  const parts = one !== undefined && other !== undefined ? diffJson(one, other, LIMITS) : diffWordsWithSpace(before, after, LIMITS);
  return parts ?? null;
}

export function Difference({ before, after, base }) {
  const [parts, setParts] = useState(undefined);
  useEffect(() => {
    let isCurrent = true;
    import("./vendor/diff.js").then((diff) => isCurrent && setParts(findDifference(diff, before, after)));
    return () => {
      isCurrent = false;
    };
  }, [before, after]);
  if (parts === null) return html`<div class="text" tabindex="0"><p class="quiet">Too different from ${base} to be compared word by word.</p>${after}</div>`;
  return html`<div class="text difference" tabindex="0" aria-label="Difference from ${base}" role="group">
    ${(parts ?? [{ value: after }]).map((part) => (part.added ? html`<ins>${part.value}</ins>` : part.removed ? html`<del>${part.value}</del>` : part.value))}
  </div>`;
}
