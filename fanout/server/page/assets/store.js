// Choices of the reader that this browser keeps, and nothing else: no prompt, no answer, no key.
import { effect, signal } from "./vendor/preact.js";

const PREFIX = "fanout-";

function read(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? fallback;
  } catch {
    return fallback; // written by another version, or storage is switched off
  }
}

/** Return a signal whose value is remembered by this browser. */
export function remembered(name, fallback) {
  const kept = signal(read(name, fallback));
  effect(() => {
    const text = JSON.stringify(kept.value);
    try {
      localStorage.setItem(PREFIX + name, text);
    } catch {
      // Full or switched off: the choice lasts as long as the page.
    }
  });
  return kept;
}

/** `light`, `dark`, or `auto` as the system has it. */
export const theme = remembered("theme", "auto");
/** `columns`, `grid` or `stacked`. */
export const layout = remembered("layout", "columns");
/** Entries of the next comparison: `{ model, label, parameters }`; null until the first choice. */
export const entries = remembered("entries", null);
export const showsMarkdown = remembered("markdown", false);
