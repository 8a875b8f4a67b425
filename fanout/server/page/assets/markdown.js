// Markdown as elements, made token by token: no HTML of a model is ever parsed, so there is nothing to sanitize.
import { html, useEffect, useState } from "./vendor/preact.js";

let lexer = null;

/** Show markdown: no raw HTML, no images, and links as text with their targets. */
export function Markdown({ text }) {
  const [isLoaded, setLoaded] = useState(lexer !== null);
  useEffect(() => {
    if (!lexer) import("./vendor/marked.js").then((loaded) => ((lexer = loaded.lexer), setLoaded(true)));
  }, []);
  return html`<div class="text markdown" tabindex="0">${isLoaded ? lexer(text).map(renderToken) : text}</div>`;
}

const inside = (token) => (token.tokens ? token.tokens.map(renderToken) : unescape(token.text ?? token.raw));

/** Undo the escapes that the lexer writes for HTML. */
function unescape(text) {
  return text.replace(/&(amp|lt|gt|quot|#39);/g, (_, name) => ({ amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" })[name]);
}

function renderToken(token) {
  switch (token.type) {
    case "heading":
      return html`<p class="heading level-${token.depth}" dir="auto">${inside(token)}</p>`;
    case "paragraph":
      return html`<p dir="auto">${inside(token)}</p>`;
    case "strong":
      return html`<strong>${inside(token)}</strong>`;
    case "em":
      return html`<em>${inside(token)}</em>`;
    case "del":
      return html`<del>${inside(token)}</del>`;
    case "codespan":
      return html`<code>${unescape(token.text)}</code>`;
    case "code":
      return html`<pre tabindex="0"><code>${token.text}</code></pre>`;
    case "blockquote":
      return html`<blockquote>${inside(token)}</blockquote>`;
    case "list":
      return token.ordered
        ? html`<ol start=${token.start || 1}>${token.items.map(renderToken)}</ol>`
        : html`<ul>${token.items.map(renderToken)}</ul>`;
    case "list_item":
      return html`<li dir="auto">${inside(token)}</li>`;
    case "table":
      return html`<table><thead><tr>${token.header.map((cell) => html`<th>${inside(cell)}</th>`)}</tr></thead>
        <tbody>${token.rows.map((row) => html`<tr>${row.map((cell) => html`<td>${inside(cell)}</td>`)}</tr>`)}</tbody></table>`;
    case "link":
      // Not a link: a click, a preview or a prefetch would tell its target whatever the model wrote into it.
      return html`<span class="target">${inside(token)}${token.text === token.href ? "" : ` (${token.href})`}</span>`;
    case "image":
      return html`<span class="target">[image: ${token.text} (${token.href})]</span>`;
    case "br":
      return html`<br />`;
    case "hr":
      return html`<hr />`;
    case "space":
    case "def":
      return null;
    case "html":
      return token.raw;
    default:
      return inside(token);
  }
}
