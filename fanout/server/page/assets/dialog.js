import { html, useEffect, useRef } from "./vendor/preact.js";

/** A dialog in front of the page, closed by Escape, its button, or a click beside it. */
export function Dialog({ title, onClose, children, isWide = false }) {
  const ref = useRef();
  useEffect(() => {
    const opener = document.activeElement;
    ref.current.showModal();
    ref.current.querySelector("input, textarea")?.focus();
    return () => opener?.focus?.();
  }, []);
  const clickBeside = (event) => event.target === ref.current && onClose();
  return html`<dialog ref=${ref} class=${isWide ? "wide" : ""} aria-label=${title} onClose=${onClose} onClick=${clickBeside}>
    <div class="dialog-body">
      <header><h2>${title}</h2><button class="quiet-button" onClick=${onClose} aria-label="Close">✕</button></header>
      ${children}
    </div>
  </dialog>`;
}
