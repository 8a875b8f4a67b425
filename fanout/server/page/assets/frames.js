// One step per frame for everything that changes: all write first, and scroll only then, so that a frame is laid out once.
const steps = new Map();
let frame = 0;

/** Have `write` called in the next frame, and `settle` after the writes of all others; once, however often this is called. */
export function schedule(write, settle) {
  steps.set(write, settle);
  if (!frame) frame = requestAnimationFrame(paint);
}

/** Call off what has been scheduled. */
export const unschedule = (write) => steps.delete(write);

function paint() {
  frame = 0;
  const due = [...steps];
  steps.clear();
  for (const [write] of due) write();
  for (const [, settle] of due) settle();
}
