import { html, useEffect, useState } from "./vendor/preact.js";
import { ApiError, getJson, key } from "./api.js";

/** Return `{ data, error, reload }` of a path; with `everyMs`, it is fetched again while the tab is seen. */
export function useJson(path, everyMs = 0) {
  const [state, setState] = useState({ data: null, error: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!path) return undefined;
    const abort = new AbortController();
    let timer = 0;
    const load = async () => {
      try {
        if (!document.hidden || !everyMs) setState({ data: await getJson(path, { signal: abort.signal }), error: null });
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!(error instanceof ApiError)) throw error;
        setState((before) => ({ data: before.data, error }));
      }
      if (everyMs && !abort.signal.aborted) timer = setTimeout(load, everyMs);
    };
    load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [path, turn, key.value]);
  return { ...state, reload: () => setTurn(turn + 1) };
}

/** What is shown of a path that is not there yet, or cannot be read. */
export function Pending({ error, reload }) {
  if (!error) return html`<p class="quiet">Loading…</p>`;
  return html`<div class="failure" role="alert"><p>${error.message}</p>${reload && html`<button class="quiet-button" onClick=${reload}>Try again</button>`}</div>`;
}
