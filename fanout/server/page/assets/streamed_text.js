// A text that grows: appended to the document piece by piece, as text and never as markup.
import { effect, html, useLayoutEffect, useRef } from "./vendor/preact.js";
import { schedule, unschedule } from "./frames.js";

/** Characters of one block. Browsers lay a block out anew for every piece, so a line of megabytes is cut into several. */
const MAX_BLOCK = 8192;

/** Append text below an element: a block for each line. */
export function appendText(box, text) {
  let block = box.lastElementChild;
  text.split("\n").forEach((line, number) => {
    for (let start = 0; start === 0 || start < line.length; start += MAX_BLOCK) {
      const piece = line.slice(start, start + MAX_BLOCK);
      if (!block || number || start || block.firstChild.length + piece.length > MAX_BLOCK) {
        block = document.createElement("div");
        block.dir = "auto";
        block.append("");
        box.append(block);
        number = 0;
      }
      block.firstChild.appendData(piece);
    }
  });
}

export function StreamedText({ column, label }) {
  const ref = useRef();
  useLayoutEffect(() => {
    const box = ref.current;
    let shown = 0;
    let isFollowing = true;
    const paint = () => {
      appendText(box, column.text.slice(shown));
      shown = column.text.length;
    };
    const follow = () => {
      // No more once the reader has scrolled up to read.
      if (isFollowing && column.isRunning) box.scrollTop = 1e9;
    };
    const watchScroll = () => {
      isFollowing = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    };
    box.addEventListener("wheel", watchScroll, { passive: true });
    box.addEventListener("keyup", watchScroll);
    // Once a frame, whatever has come meanwhile: a tab in the background has no frames and catches up with its first.
    const stop = effect(() => {
      if (column.version.value) schedule(paint, follow);
    });
    return () => {
      stop();
      unschedule(paint);
      box.replaceChildren();
    };
  }, [column]);
  return html`<div class="text" ref=${ref} role="log" aria-live="off" aria-label=${label} tabindex="0"></div>`;
}
