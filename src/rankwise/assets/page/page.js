"use strict";
/* What the page can do beyond being read: sort, filter, choose, point, look behind a number, download.
   Every text is set as text, never as HTML. Each function takes care of one thing; `start` at the end calls them all. */

const facts = JSON.parse(document.getElementById("facts").textContent);
/* Rows to objects; what was not measured has no entry. */
const runOf = (row) => Object.fromEntries(facts.run_columns.map((name, i) => [name, row[i]]).filter(([, value]) => value !== null));
facts.runs = Object.fromEntries(Object.entries(facts.runs).map(([id, places]) => [id, places.map(runOf)]));
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

/* ---- theme ---- */

function themes() {
  const order = ["automatic", "light", "dark"];
  const button = byId("theme");
  const set = (theme) => {
    if (theme === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    try { localStorage.setItem("rankwise-theme", theme); } catch { /* a file may have no storage */ }
  };
  let kept = null;
  try { kept = localStorage.getItem("rankwise-theme"); } catch { /* as above */ }
  set(order.includes(kept) ? kept : "automatic");
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "automatic";
    set(order[(order.indexOf(now) + 1) % order.length]);
  });
}

/* ---- tables ---- */

/* "−0.0193 [−0.0261, …]" -> -0.0193; "1 h 05 min" and "3 min 20 s" -> seconds; "1.20 GiB" -> MiB; "–" -> null. */
function numberIn(text) {
  const plain = text.trim().replaceAll("−", "-").replaceAll(",", "");
  const time = plain.match(/^(\d+) (h|min) (\d+) (?:min|s)/);
  if (time) return (Number(time[1]) * 60 + Number(time[3])) * (time[2] === "h" ? 60 : 1);
  const found = plain.match(/^[<~]?\s*([-+]?\d*\.?\d+(?:e[-+]?\d+)?)/i);
  if (!found) return null;
  return Number(found[1]) * (/^\S+ GiB/.test(plain) ? 1024 : 1);
}

function compareCells(a, b, numeric) {
  if (!numeric) return a.localeCompare(b, undefined, { numeric: true });
  const [x, y] = [numberIn(a), numberIn(b)];
  if (x === null || y === null) return (x === null) - (y === null) || a.localeCompare(b);
  return x - y;
}

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent) return;
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (before === "descending") return body.append(...original);
      const down = before === "ascending";
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("number");
      const text = (row) => row.cells[column].textContent.trim();
      const known = (row) => !numeric || numberIn(text(row)) !== null;
      const sorted = original.filter(known).sort((a, b) => compareCells(text(a), text(b), numeric) * (down ? -1 : 1));
      body.append(...sorted, ...original.filter((row) => !known(row))); // what is missing stands last either way
    });
  });
}

function filterable(table, tools, name) {
  const rows = [...table.tBodies[0].rows];
  const input = make("input", { type: "search", autocomplete: "off" });
  input.setAttribute("aria-label", `Filter the rows of ${name}`);
  const count = make("span");
  count.setAttribute("role", "status");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word));
      row.classList.toggle("off-filter", !fits);
      shown += fits;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
  tools.append(make("label", {}, "Filter ", input), count);
}

function tableText(table) {
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [...table.rows]
    .map((row) => [...row.cells].map((cell) => quote(cell.textContent.trim())).join(","))
    .join("\n") + "\n";
}

function tables() {
  for (const box of all("main .table")) {
    const table = box.firstElementChild;
    const name = box.getAttribute("aria-label");
    const tools = make("div", { className: "table-tools" });
    if (table.tBodies[0].rows.length > 4) filterable(table, tools, name);
    const save = make("button", { type: "button" }, "Table (CSV)");
    save.addEventListener("click", () => download(`${name}.csv`, new Blob([tableText(table)], { type: "text/csv" })));
    tools.append(save);
    box.before(tools);
    if (table.tBodies[0].rows.length > 1) sortable(table);
  }
}

/* ---- arms and seeds ---- */

function choices() {
  const update = () => {
    const parts = [];
    for (const kind of ["arm", "seed"]) {
      const boxes = all(`#choice input[name=${kind}]`);
      const off = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
      for (const node of all(`[data-${kind}]`)) node.classList.toggle(`off-${kind}`, off.has(node.dataset[kind]));
      if (off.size) parts.push(`${boxes.length - off.size} of ${boxes.length} ${kind}s`);
    }
    byId("chosen").textContent = parts.length ? `(${parts.join(", ")})` : "(all)";
  };
  byId("choice").addEventListener("change", update);
  byId("choice").addEventListener("click", (event) => {
    const { all: on, none: off } = event.target.dataset ?? {};
    if (!on && !off) return;
    for (const box of all(`#choice input[name=${on || off}]`)) box.checked = Boolean(on);
    update();
  });
  byId("choice").hidden = false;
  update();
}

/* ---- pointing ---- */

const tip = {
  show(text, x, y) {
    const box = byId("tip");
    box.textContent = text;
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
    box.style.top = `${y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18}px`;
  },
  hide() {
    byId("tip").hidden = true;
  },
};

/* Elements bring their text as <title>, which browsers show late and telephones never. */
function tips() {
  for (const title of all("main svg title")) {
    const node = title.parentNode;
    node.dataset.tip = title.textContent;
    node.classList.add("tipped");
    title.remove();
  }
  document.addEventListener("pointermove", (event) => {
    const node = event.target.closest?.("[data-tip]");
    if (node) tip.show(node.dataset.tip, event.clientX, event.clientY);
    else if (!document.querySelector(".current")) tip.hide();
  });
  document.addEventListener("click", (event) => {
    const node = event.target.closest?.("[data-tip]");
    if (node) tip.show(node.dataset.tip, event.clientX, event.clientY);
    else tip.hide();
    if (node?.dataset.run) location.hash = `run-${node.dataset.run}`;
  });
  document.addEventListener("scroll", tip.hide, { passive: true });
  for (const svg of all("main svg[tabindex]")) keyboard(svg);
}

/* Arrow keys go from mark to mark of the focused drawing; Enter opens the run behind one, Escape leaves. */
function keyboard(svg) {
  const leave = () => {
    all(".current", svg).forEach((node) => node.classList.remove("current"));
    tip.hide();
  };
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const now = svg.querySelector(".current");
    if (event.key === "Escape") return leave();
    if (event.key === "Enter" && now?.dataset.run) location.hash = `run-${now.dataset.run}`;
    if (!step) return;
    event.preventDefault();
    const marks = all("[data-tip]", svg).filter((node) => node.getClientRects().length);
    if (!marks.length) return;
    const next = marks[(marks.indexOf(now) + step + marks.length) % marks.length] ?? marks[0];
    leave();
    next.classList.add("current");
    const box = next.getBoundingClientRect();
    tip.show(next.dataset.tip, box.right, box.bottom);
  });
}

/* ---- rank maps ---- */

function rankMaps() {
  const tools = document.querySelector(".map-tools");
  if (!tools) return;
  const { colours, views, arms } = facts.maps;
  const option = ([value, text]) => make("option", { value }, text);
  const seeds = [...new Set(arms.flatMap((arm) => arm.runs.filter((run) => run.drawn).map((run) => run.seed)))];
  seeds.sort((a, b) => a - b);
  const view = make("select", { autocomplete: "off" }, ...Object.entries(views).map(option));
  const seed = make("select", { autocomplete: "off" }, option(["", "mean"]), ...seeds.map((s) => option([s, s])));
  const values = (arm) => {
    const runs = arm.runs.filter((run) => run.drawn && (seed.value === "" || String(run.seed) === seed.value));
    const found = runs.map((run) => arm.maps[run.map][view.value]);
    return arm.sites.map((_, cell) => {
      const known = found.map((map) => map[cell]).filter((value) => value !== null);
      return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
    });
  };
  const redraw = () => {
    const drawn = arms.map(values);
    const isRank = view.value !== "scale";
    const ranks = isRank ? arms.flatMap((arm) => arm.maps.flatMap((map) => map[view.value])) : drawn.flat();
    const highest = Math.max(...ranks.filter((value) => value !== null), 0);
    for (const panel of all("[data-figure=rank_maps] .panel")) {
      for (const cell of all(".cell", panel)) {
        const value = drawn[Number(panel.dataset.arm)][Number(cell.dataset.cell)];
        const shade = highest && value !== null ? value / highest : 0;
        const [box, text] = [cell.querySelector("rect"), cell.querySelector("text")];
        box.setAttribute("fill", colours[Math.round(shade * (colours.length - 1))]);
        text.setAttribute("fill", shade > facts.maps.dark_text_from ? "#000" : "#fff");
        text.textContent = value === null ? "–" : String(Number(value.toPrecision(isRank && value >= 10 ? 3 : 2)));
      }
    }
    document.querySelector(".map-view").textContent = views[view.value];
    document.querySelector(".map-highest").textContent = String(Number(highest.toPrecision(3)));
  };
  view.addEventListener("change", redraw);
  seed.addEventListener("change", redraw);
  tools.prepend(make("label", {}, "Show ", view), make("label", {}, "Seed ", seed));
}

/* ---- what lies behind a number ---- */

const text = (value) =>
  typeof value === "number" ? String(value) : typeof value === "string" ? value : JSON.stringify(value, null, 2);

function valuesTable(entries) {
  const rows = entries.map(([name, value]) => {
    const head = make("th", { scope: "row" }, name.replaceAll("_", " "));
    return make("tr", {}, head, make("td", {}, value instanceof Node ? value : text(value)));
  });
  return make("table", {}, make("tbody", {}, ...rows));
}

function listTable(header, rows) {
  const head = make("tr", {}, ...header.map((name) => make("th", { scope: "col" }, name)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell ?? "–"))));
  const box = make("div", { className: "table", tabIndex: 0 });
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", header.join(", "));
  box.append(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  return box;
}

function folded(title, ...children) {
  return make("details", {}, make("summary", {}, title), ...children);
}

const code = (value) => make("pre", {}, text(value));

function runLink(id) {
  return make("a", { href: `#run-${id}`, className: "run" }, make("code", {}, id));
}

function armIndex(name) {
  return facts.arms.findIndex((arm) => arm.name === name);
}

function runDetails(id) {
  const places = facts.runs[id];
  const parts = [];
  for (const run of places) {
    const index = armIndex(run.arm);
    const { configuration, arm, environment, ...rest } = run;
    parts.push(valuesTable([["arm", make("a", { href: `#arm-${index}` }, arm)], ...Object.entries(rest)]));
    const maps = facts.maps.arms[index];
    const found = maps.runs.find((other) => other.id === id);
    if (found) {
      const map = maps.maps[found.map];
      const names = Object.keys(facts.maps.views);
      const rows = maps.sites.map((site, cell) => [site, ...names.map((name) => text(map[name][cell] ?? "–"))]);
      parts.push(folded(`Ranks and scales of ${rows.length} sites`, listTable(["site", ...names.map((n) => facts.maps.views[n])], rows)));
    }
    parts.push(folded("Configuration (with learning rate and seed, what the id is the hash of)", code(facts.configurations[configuration])));
    parts.push(folded("Environment", code(facts.environments[environment] ?? "not recorded")));
  }
  parts.push(make("p", { className: "note" }, "On the machine that holds the ledger: ", make("code", {}, `rankwise runs show ${id}`)));
  return [`Run ${id}`, parts];
}

function armDetails(index) {
  const arm = facts.arms[index];
  const runs = Object.entries(facts.runs).flatMap(([id, places]) =>
    places.filter((run) => run.arm === arm.name).map((run) => [id, run]));
  const row = ([id, run]) => {
    const loss = run.purpose === "report" ? run.test_loss : run.validation_loss;
    return [runLink(id), text(run.learning_rate), text(run.seed), run.status, loss === undefined ? "–" : loss.toFixed(4)];
  };
  const of = (purpose, loss) => {
    const found = runs.filter(([, run]) => run.purpose === purpose);
    return found.length ? [make("h3", {}, `${found.length} ${purpose === "report" ? "reported" : "tuning"} runs`),
      listTable(["run", "learning rate", "seed", "status", loss], found.map(row))] : [];
  };
  return [`Arm ${arm.name}`, [
    valuesTable([["strategy", arm.settings.strategy], ["chosen learning rate", arm.learning_rate ?? "not chosen yet"],
      ["differs from the baseline by", arm.deviations.join(", ") || "its allocation alone"]]),
    ...of("report", "test loss"), ...of("tuning", "validation loss"),
    folded("Settings of the arm", code(arm.settings)),
    folded("Environment of the last session", code(facts.environment)),
  ]];
}

function details() {
  const dialog = byId("detail");
  const open = () => {
    const [, kind, name] = location.hash.match(/^#(run|arm)-(.+)$/) ?? [];
    const known = kind === "run" ? Object.hasOwn(facts.runs, name) : kind === "arm" && Object.hasOwn(facts.arms, name);
    if (!known) return dialog.open && dialog.close();
    const [title, parts] = kind === "run" ? runDetails(name) : armDetails(Number(name));
    byId("detail-title").textContent = title;
    byId("detail-body").replaceChildren(...parts);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    tip.hide();
  };
  let from = 0;
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#run-"], a[href^="#arm-"]');
    if (!link) return;
    event.preventDefault(); // no jump to the row of the same name
    if (!dialog.open) from = scrollY;
    history.pushState(null, "", link.getAttribute("href"));
    open();
  });
  dialog.addEventListener("close", () => {
    if (/^#(run|arm)-/.test(location.hash)) history.pushState(null, "", location.pathname + location.search);
  });
  addEventListener("hashchange", open);
  addEventListener("popstate", open);
  open();
}

/* ---- files ---- */

function download(name, blob) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name.replaceAll("/", "_") }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).blob();
}

function files() {
  document.addEventListener("click", async (event) => {
    const name = event.target.closest?.("[data-file]")?.dataset.file;
    if (!name) return;
    const held = all("script.file").find((script) => script.dataset.name === name);
    download(name.split("/").pop(), await unpack(held.textContent));
  });
}

/* ---- printing ---- */

function printing() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("main details:not([open])");
    closed.forEach((node) => { node.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((node) => { node.open = false; }));
  byId("print").addEventListener("click", () => print());
}

/* ---- while a study runs: only where `rankwise report --serve` serves the page ---- */

function live() {
  const version = document.documentElement.dataset.version;
  if (!version) return;
  const note = byId("live");
  const isUntouched = () => !byId("detail").open && !document.querySelector(".off-arm, .off-seed, .off-filter");
  const timer = setInterval(async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      if ((await answer.text()) === version) return;
    } catch {
      note.textContent = "No longer live: the server has ended.";
      clearInterval(timer);
      return;
    }
    if (isUntouched()) return location.reload();
    const button = make("button", { type: "button" }, "Show them");
    button.addEventListener("click", () => location.reload());
    note.replaceChildren("There are newer results. ", button);
    clearInterval(timer);
  }, 3000);
}

for (const start of [themes, tables, choices, tips, rankMaps, details, files, printing, live]) start();
document.querySelector(".tools").hidden = false;
