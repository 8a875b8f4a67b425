// The frame around every view: navigation, the theme, the key, the list of shortcuts.
import { effect, html, useEffect, useErrorBoundary, useState } from "./vendor/preact.js";
import { Announcer } from "./announcer.js";
import { key, keyWanted, setKey } from "./api.js";
import { loadModels } from "./catalogue.js";
import { Compare } from "./compare.js";
import { Dialog } from "./dialog.js";
import { KeyDialog } from "./key_dialog.js";
import { route } from "./router.js";
import { theme } from "./store.js";

const SHORTCUTS = [
  ["Ctrl + Enter", "run"],
  ["/", "search, or the prompt"],
  ["1 to 4", "vote, in the blind view"],
  ["?", "these shortcuts"],
  ["Escape", "close what is open"],
];
/** Views beside Compare: loaded when they are opened, so that the first paint does not wait for them. */
const VIEWS = {
  blind: () => import("./views/blind.js").then((module) => module.Blind),
  jobs: () => import("./views/jobs.js").then((module) => module.Jobs),
  history: () => import("./views/history.js").then((module) => module.History),
  providers: () => import("./views/providers.js").then((module) => module.Providers),
  usage: () => import("./views/usage.js").then((module) => module.Usage),
};
const NAMES = { compare: "Compare", blind: "Blind", jobs: "Jobs", history: "History", providers: "Providers", usage: "Usage" };
const NEXT_THEME = { auto: "light", light: "dark", dark: "auto" };

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

function Lazy({ name, path, query }) {
  const [view, setView] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    setView(null);
    VIEWS[name]().then(
      (component) => isCurrent && setView({ component }),
      () => isCurrent && setError("This view cannot be loaded: the server has been renewed or stopped."),
    );
    return () => {
      isCurrent = false;
    };
  }, [name]);
  if (error) return html`<div class="failure"><p>${error}</p><button class="quiet-button" onClick=${() => location.reload()}>Load the page again</button></div>`;
  return view ? html`<${view.component} path=${path} query=${query} />` : html`<p class="quiet">…</p>`;
}

function Guard({ children }) {
  const [error, reset] = useErrorBoundary((caught) => console.error(caught));
  if (!error) return children;
  return html`<div class="failure" role="alert"><p>This view has failed: ${error.message}</p><button class="quiet-button" onClick=${reset}>Show it again</button></div>`;
}

function useShortcuts(setHelp) {
  useEffect(() => {
    const press = (event) => {
      if (event.target.closest("input, textarea, select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "?") setHelp(true);
      else if (event.key === "/") (document.querySelector("input[type=search]") ?? document.getElementById("prompt"))?.focus();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

export function App() {
  const [hasHelp, setHelp] = useState(false);
  useShortcuts(setHelp);
  const { path, query } = route.value;
  const [, first, second] = path.split("/");
  const name = VIEWS[first] ? first : "compare";
  useEffect(() => {
    document.querySelector("nav a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    document.title = name === "compare" ? "Fanout" : `${NAMES[name]} · Fanout`;
  }, [name]);
  const ids = first === "runs" && second ? second.split(",") : [];
  return html`<header class="top">
      <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), document.querySelector("main").focus())}>To the content</a>
      <a class="brand" href="#/">Fanout</a>
      <nav aria-label="Views">${Object.entries(NAMES).map(([view, title]) => html`<a key=${view} href=${view === "compare" ? "#/" : `#/${view}`} aria-current=${view === name ? "page" : undefined}>${title}</a>`)}</nav>
      <div class="top-actions">
        ${key.value && html`<button class="quiet-button" onClick=${() => (setKey(""), loadModels())}>Forget key</button>`}
        <button class="quiet-button" onClick=${() => (theme.value = NEXT_THEME[theme.value])} aria-label="Theme: ${theme.value}">${{ auto: "◐", light: "☀", dark: "☾" }[theme.value]}</button>
        <button class="quiet-button" onClick=${() => setHelp(true)} aria-label="Shortcuts">?</button>
      </div>
    </header>
    <main tabindex="-1"><${Guard} key=${name}>${name === "compare" ? html`<${Compare} ids=${ids} />` : html`<${Lazy} name=${name} path=${path} query=${query} />`}<//></main>
    <${Announcer} />
    ${keyWanted.value && html`<${KeyDialog} />`}
    ${hasHelp && html`<${Dialog} title="Shortcuts" onClose=${() => setHelp(false)}><dl class="shortcuts">${SHORTCUTS.map(([keys, what]) => html`<div key=${keys}><dt><kbd>${keys}</kbd></dt><dd>${what}</dd></div>`)}</dl><//>`}`;
}
