// The live part of a report: answers side by side, filters, and tables as CSV. Everything comes from blocks of this document,
// and whatever a model wrote goes in as text, never as markup.
const [ROW_PX, MARGIN_ROWS, MAX_CHUNKS, MAX_PX, CELL_LETTERS, MAX_PRODUCT, TONES] = [150, 4, 12, 15_000_000, 700, 4_000_000, 8];
const SHOWS = { all: "All", errors: "Errors", different: "Different", regressions: "Regressions" };
const [HAS_ERROR, IS_DIFFERENT] = [1, 2];
const $ = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");

/** Return an element. Children are elements, or text, which is all that a string can become. */
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Return the value in a block of this document. */
async function unpack(name) {
  const bytes = Uint8Array.from(atob($(name).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// --- Tables as files ---
let files;
async function save(event) {
  files ??= unpack("files");
  const [name, text] = (await files)[Number(event.target.dataset.csv)];
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  make("a", { href: address, download: name.replaceAll(/[^\w.-]+/g, "-") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
for (const button of document.querySelectorAll("button.csv")) button.addEventListener("click", save);

// On paper nothing can be opened.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
});

// --- Differences ---
const split = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

/** Return the pieces of `after`, and those of `before` that it lacks: [value, "" | "ins" | "del"]. */
function compare(before, after) {
  const [one, other] = [split(before), split(after)];
  let start = 0;
  while (start < one.length && start < other.length && one[start] === other[start]) start++;
  let end = 0;
  while (end < one.length - start && end < other.length - start && one.at(-1 - end) === other.at(-1 - end)) end++;
  const [left, right] = [one.slice(start, one.length - end), other.slice(start, other.length - end)];
  return [[other.slice(0, start).join(""), ""], ...compareMiddles(left, right), [other.slice(other.length - end).join(""), ""]].filter(([value]) => value);
}

function compareMiddles(left, right) {
  const width = right.length + 1;
  // Too long for a table of lengths: one whole piece replaces the other.
  if (left.length * right.length > MAX_PRODUCT) return [[left.join(""), "del"], [right.join(""), "ins"]];
  const lengths = new Uint16Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      lengths[i * width + j] = left[i] === right[j] ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const parts = [];
  const add = (value, kind) => (parts.at(-1)?.[1] === kind ? (parts.at(-1)[0] += value) : parts.push([value, kind]));
  let [i, j] = [0, 0];
  while (i < left.length || j < right.length) {
    if (i < left.length && j < right.length && left[i] === right[j]) {
      add(right[j++], "");
      i++;
    } else if (j === right.length || (i < left.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) add(left[i++], "del");
    else add(right[j++], "ins");
  }
  return parts;
}

const toElement = ([value, kind]) => (kind ? make(kind, {}, value) : value);

// --- Answers ---
const index = await unpack("index");
const chunks = new Map();
const view = { show: "all", sort: "input", base: 0, metric: 0, marks: true, search: "", found: null, rows: [], turn: 0 };

function getMeans(row) {
  return index.metrics.length ? index.means[view.metric][row] : [];
}

function isWorse(row) {
  const means = getMeans(row);
  const base = means[view.base];
  if (base === null || base === undefined) return false;
  const isUp = index.metrics[view.metric].up;
  return means.some((mean) => mean !== null && (isUp ? mean < base : mean > base));
}

const TESTS = { all: () => true, errors: (row) => index.flags[row] & HAS_ERROR, different: (row) => index.flags[row] & IS_DIFFERENT, regressions: isWorse };

function getSpread(row) {
  const known = getMeans(row).filter((mean) => mean !== null);
  return known.length ? Math.max(...known) - Math.min(...known) : -1;
}

const everyRow = Array.from({ length: index.items }, (_, row) => row);
const findChunk = (row) => {
  let [low, high] = [0, index.firsts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (index.firsts[middle] <= row) low = middle;
    else high = middle - 1;
  }
  return low;
};

/** Return the items of a chunk; those longest out of use are dropped. */
async function load(chunk) {
  const known = chunks.get(chunk);
  chunks.delete(chunk);
  const held = known ?? { items: null, promise: unpack(`chunk-${chunk}`) };
  chunks.set(chunk, held);
  if (chunks.size > MAX_CHUNKS) chunks.delete(chunks.keys().next().value);
  held.items ??= await held.promise;
  return held.items;
}

const getItem = (row) => {
  const chunk = findChunk(row);
  return chunks.get(chunk)?.items?.[row - index.firsts[chunk]];
};

async function loadItem(row) {
  const chunk = findChunk(row);
  return (await load(chunk))[row - index.firsts[chunk]];
}

const name = (item) => item.id ?? `item ${count(item.n)}`;
const decimal = (value) => (value === null || value === undefined ? null : Number(value.toFixed(3)).toString());
const toText = (cell) => cell.t ?? "";

function describe(cell) {
  const time = cell.ms === undefined ? null : cell.ms >= 1000 ? `${(cell.ms / 1000).toFixed(1)} s` : `${cell.ms} ms`;
  const price = cell.c === undefined ? null : `$${Number(cell.c.toPrecision(2))}`;
  return [cell.e?.replaceAll("_", " ") ?? cell.f, cell.k === undefined ? null : `${count(cell.k)} tokens`, time, price].filter(Boolean).join(" · ");
}

/** Return the text of an answer as nodes, with what the baseline's answer has not marked; with `isWhole` also what it has more. */
function render(cell, base, isWhole) {
  if (cell.e) return [cell.m ?? cell.e];
  const clip = (text) => (isWhole ? text : text.slice(0, CELL_LETTERS));
  const text = toText(cell);
  if (!view.marks || !base || base === cell || base.e) return [clip(text)];
  return compare(clip(toText(base)), clip(text)).filter(([, kind]) => isWhole || kind !== "del").map(toElement);
}

const BADGES = { base: "baseline", same: "same", different: "differs" };
function getBadge(cell, base) {
  if (!view.marks || !base || cell.e || base.e || index.models.length < 2) return null;
  const kind = base === cell ? "base" : toText(base) === toText(cell) ? "same" : "different";
  return make("span", { class: `badge ${kind}` }, BADGES[kind]);
}

function drawCell(answers, mean, base) {
  const cell = answers[0];
  if (!cell) return make("div", { class: "cell", role: "cell" }, make("p", { class: "quiet" }, "not ended"));
  const more = answers.length > 1 ? `${answers.length} answers` : null;
  const facts = [make("b", { class: "score" }, decimal(mean) ?? ""), " ", [more, describe(cell)].filter(Boolean).join(" · "), " ", getBadge(cell, base)];
  return make("div", { class: `cell${cell.e ? " bad" : ""}`, role: "cell" }, make("div", { class: "text", dir: "auto" }, ...render(cell, base, false)), make("p", { class: "facts" }, ...facts));
}

function drawRow(row, place) {
  const line = make("div", { class: "row", role: "row", "aria-rowindex": place + 2 });
  line.style.transform = `translateY(${place * ROW_PX}px)`;
  line.dataset.row = row;
  const item = getItem(row);
  if (!item) {
    line.append(make("div", { class: "item", role: "cell" }, make("span", { class: "quiet" }, "…")));
    return line;
  }
  const open = make("button", { type: "button", class: "open", "aria-label": `Open ${name(item)}` }, name(item));
  line.append(make("div", { class: "item", role: "rowheader" }, open, make("div", { class: "text", dir: "auto" }, item.p.slice(0, CELL_LETTERS))));
  const means = getMeans(row);
  line.append(...item.a.map((answers, column) => drawCell(answers, means[column], item.a[view.base]?.[0])));
  return line;
}

const drawn = new Map();
const table = make("div", { class: "rows", role: "table", tabindex: "0", "aria-label": "Answers" });
const head = make("div", { class: "row head", role: "row" });
const space = make("div", { class: "space" });

function draw() {
  const [first, last] = [Math.max(Math.floor((table.scrollTop - head.offsetHeight) / ROW_PX) - MARGIN_ROWS, 0), Math.ceil((table.scrollTop + table.clientHeight) / ROW_PX) + MARGIN_ROWS];
  const wanted = view.rows.slice(first, Math.min(last, Math.floor(MAX_PX / ROW_PX)));
  const keys = new Set(wanted.map((row, offset) => `${row} ${first + offset} ${getItem(row) ? 1 : 0}`));
  for (const [key, line] of drawn) {
    if (keys.has(key)) continue;
    line.remove();
    drawn.delete(key);
  }
  [...keys].forEach((key, offset) => {
    if (drawn.has(key)) return;
    const line = drawRow(wanted[offset], first + offset);
    drawn.set(key, line);
    space.append(line);
  });
  for (const chunk of new Set(wanted.filter((row) => !getItem(row)).map(findChunk))) if (!chunks.has(chunk)) load(chunk).then(draw);
}

function redraw() {
  for (const line of drawn.values()) line.remove();
  drawn.clear();
  draw();
}

const state = $("answers-state");
function apply() {
  view.rows = (view.found ?? everyRow).filter(TESTS[view.show]);
  if (view.sort === "spread") {
    const spreads = new Map(view.rows.map((row) => [row, getSpread(row)]));
    view.rows.sort((one, other) => spreads.get(other) - spreads.get(one) || one - other);
  }
  const missing = index.total > index.items ? `; ${count(index.total - index.items)} more of the job are not in this file` : "";
  state.textContent = `${count(view.rows.length)} of ${count(index.items)} items${missing}`;
  space.style.height = `${Math.min(view.rows.length * ROW_PX, MAX_PX)}px`;
  table.setAttribute("aria-rowcount", view.rows.length + 1);
  for (const button of filters.querySelectorAll("button[data-show]")) {
    button.setAttribute("aria-pressed", button.dataset.show === view.show);
    const found = everyRow.reduce((sum, row) => sum + (TESTS[button.dataset.show](row) ? 1 : 0), 0);
    button.querySelector("small").textContent = count(found);
  }
  table.scrollTop = 0;
  redraw();
}

/** Find the rows whose texts hold the words; chunk by chunk, and no further once something else is searched for. */
async function search(words) {
  const turn = ++view.turn;
  const wanted = words.trim().toLowerCase();
  const found = [];
  for (let chunk = 0; wanted && chunk < index.firsts.length; chunk++) {
    const items = await load(chunk);
    if (turn !== view.turn) return;
    items.forEach((item, offset) => {
      const texts = [item.id ?? "", item.p, item.r ?? "", ...item.a.flat().map((cell) => `${toText(cell)}\n${cell.m ?? ""}`)];
      if (texts.some((text) => text.toLowerCase().includes(wanted))) found.push(index.firsts[chunk] + offset);
    });
    state.textContent = `Searching: ${Math.round((100 * (chunk + 1)) / index.firsts.length)} %`;
  }
  view.found = wanted ? found : null;
  apply();
}

// --- One item, whole ---
const dialog = make("dialog", { "aria-label": "Item", class: "whole" });
let shown = 0;
async function openItem(place) {
  if (place < 0 || place >= view.rows.length) return;
  shown = place;
  const row = view.rows[place];
  const item = await loadItem(row);
  const means = getMeans(row);
  const step = (by, label, sign) => make("button", { type: "button", "aria-label": label, disabled: place + by < 0 || place + by >= view.rows.length, onclick: () => openItem(place + by) }, sign);
  const bar = make("header", {}, make("h3", {}, name(item)), step(-1, "Previous item", "←"), step(1, "Next item", "→"), make("button", { type: "button", onclick: () => dialog.close() }, "Close"));
  const given = [["Prompt", item.p], ...(item.r === undefined ? [] : [["Reference", item.r]])];
  const columns = item.a.map((answers, column) =>
    make("article", {}, make("h4", {}, make("span", { class: `dot m${column % TONES}`, "aria-hidden": "true" }), index.models[column]),
      make("p", { class: "facts" }, scoresOf(means, column)),
      ...(answers.length ? answers : [{ e: "not ended" }]).flatMap((cell, repeat) => {
        const base = item.a[view.base]?.[Math.min(repeat, item.a[view.base].length - 1)];
        return [make("p", { class: "facts" }, answers.length > 1 ? `${repeat + 1}. ` : "", describe(cell), " ", getBadge(cell, base)), make("div", { class: `text${cell.e ? " bad" : ""}`, dir: "auto", tabindex: "0" }, ...render(cell, base, true))];
      }),
    ),
  );
  dialog.replaceChildren(bar, ...given.map(([title, text]) => make("section", {}, make("h4", {}, title), make("div", { class: "text", dir: "auto" }, text))), make("div", { class: "answers" }, ...columns));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  history.replaceState(null, "", `#row-${row}`);
}
function scoresOf(means, column) {
  const mean = decimal(means[column]);
  return mean === null ? "" : `${index.metrics[view.metric].name} ${mean}`;
}
dialog.addEventListener("close", () => history.replaceState(null, "", "#answers"));
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) openItem(shown + by);
});

// --- Filters ---
function choose(label, options, field, convert) {
  const change = (event) => {
    view[field] = convert(event.target.value);
    apply();
  };
  return make("label", {}, `${label} `, make("select", { name: field, onchange: change }, ...options.map(([value, text]) => make("option", { value }, text))));
}

let waiting;
const filters = make("div", { class: "filters" },
  make("div", { class: "shows", role: "group", "aria-label": "Show" }, ...Object.entries(SHOWS).map(([show, text]) => make("button", { type: "button", "data-show": show, disabled: show === "regressions" && !index.metrics.length, onclick: () => { view.show = show; apply(); } }, text, " ", make("small")))),
  index.models.length > 1 && choose("Baseline", index.models.map((model, place) => [place, model]), "base", Number),
  index.metrics.length > 1 && choose("Scores", index.metrics.map((metric, place) => [place, metric.name]), "metric", Number),
  index.metrics.length > 0 && choose("Order", [["input", "input"], ["spread", "score difference"]], "sort", String),
  make("label", {}, "Search ", make("input", { type: "search", name: "search", oninput: (event) => { clearTimeout(waiting); waiting = setTimeout(search, 200, event.target.value); } })),
  index.models.length > 1 && make("label", {}, make("input", { type: "checkbox", name: "marks", checked: true, onchange: (event) => { view.marks = event.target.checked; redraw(); } }), " Mark differences"),
);

head.append(make("div", { class: "item", role: "columnheader" }, "Item"), ...index.models.map((model, place) => make("div", { class: "cell", role: "columnheader" }, make("span", { class: `dot m${place % TONES}`, "aria-hidden": "true" }), model)));
table.style.setProperty("--models", index.models.length);
table.append(head, space);
table.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
table.addEventListener("click", (event) => {
  const line = event.target.closest(".row[data-row]");
  if (line && !getSelection().toString()) openItem(view.rows.indexOf(Number(line.dataset.row)));
});
addEventListener("resize", () => requestAnimationFrame(draw));
$("answers-table").append(filters, table, dialog);
state.setAttribute("role", "status");
state.before(filters);
apply();

async function follow() {
  const row = /^#row-(\d+)$/.exec(location.hash)?.[1];
  if (row !== undefined && Number(row) < index.items) await openItem(view.rows.indexOf(Number(row)));
}
addEventListener("hashchange", follow);
await follow();
document.documentElement.dataset.ready = "";
