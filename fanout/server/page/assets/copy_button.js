import { html, useState } from "./vendor/preact.js";
import { announce } from "./announcer.js";

/** Put a text on the clipboard, also where the browser allows only the old way (plain HTTP). */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  announce("Copied");
}

export function CopyButton({ text, label, children, onCopied }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    await copyText(text());
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
    onCopied?.();
  };
  return html`<button class="quiet-button" aria-label=${label} onClick=${copy}>${isCopied ? "Copied" : children}</button>`;
}
