// Sentences with names and commands in them.
import { html } from "./vendor/preact.js";

/** Show what stands between backticks as code. */
export const withCode = (text) => text.split(/`([^`]+)`/).map((part, number) => (number % 2 ? html`<code>${part}</code>` : part));
