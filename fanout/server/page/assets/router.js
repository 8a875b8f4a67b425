// Views by address. Addresses are fragments, so that every view has one and the server serves one page.
import { signal } from "./vendor/preact.js";

const read = () => {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  return { path: path || "/", query: new URLSearchParams(query) };
};

export const route = signal(read());
addEventListener("hashchange", () => {
  route.value = read();
});

/** Go to a view; with `replace`, without a step back to the present one. */
export function go(address, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", `#${address}`);
    route.value = read();
  } else {
    location.hash = address;
  }
}
