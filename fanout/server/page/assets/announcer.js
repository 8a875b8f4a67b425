// One line for screen readers about what has changed, at most every 400 ms.
import { html, signal } from "./vendor/preact.js";

const INTERVAL_MS = 400;
const line = signal("");
let waiting = null;
let timer = 0;

/** Announce a sentence; of several within the interval, only the last. */
export function announce(sentence) {
  waiting = sentence;
  if (timer) return;
  speak();
}

function speak() {
  timer = 0;
  if (waiting === null) return;
  line.value = waiting;
  waiting = null;
  timer = setTimeout(speak, INTERVAL_MS);
}

export const Announcer = () => html`<p class="hidden" role="status" id="announcer">${line}</p>`;
