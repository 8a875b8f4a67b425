// One answer of a run: its text as it comes, its state, and the clock by which it is shown.
import { signal } from "./vendor/preact.js";

/** Time of now, while anything runs: ten times a second. */
export const clock = signal(performance.now());
let ticking = 0;

/** Count one more, or one less, that runs. */
export function keepClock(isRunning) {
  ticking += isRunning ? 1 : -1;
  if (isRunning && ticking === 1) tick();
}

function tick() {
  clock.value = performance.now();
  if (ticking) setTimeout(tick, 100);
}

/** One answer: its text as it comes, and its end. */
export class Column {
  constructor(place, earlier = []) {
    this.place = place;
    this.earlier = earlier;
    this.text = "";
    /** `waiting`, `answering`, `done`, `failed` or `stopped`. */
    this.state = signal("waiting");
    this.end = signal(null);
    /** Pieces so far. Not a signal: whoever shows them looks ten times a second, and not at every token. */
    this.pieces = 0;
    this.firstMs = signal(null);
    /** Number of changes of the text so far; whoever shows the text follows it. */
    this.version = signal(0);
    this.began = performance.now();
  }

  get isRunning() {
    return this.state.value === "waiting" || this.state.value === "answering";
  }

  add(text) {
    if (!text) return;
    if (this.firstMs.value === null) this.firstMs.value = performance.now() - this.began;
    this.text += text;
    this.pieces += 1;
    this.version.value += 1;
    if (this.state.value === "waiting") this.state.value = "answering";
  }

  finish(end) {
    // The end of a whole answer, such as one from the history, brings its text.
    if (!this.text && end.text) this.add(end.text);
    this.end.value = end;
    const kind = end.error?.kind;
    this.state.value = kind ? (kind === "cancelled" ? "stopped" : "failed") : "done";
  }
}
