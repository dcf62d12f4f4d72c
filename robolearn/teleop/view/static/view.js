// The page's two views (all episodes, one episode), told apart by the address: #/ and #/demo_3/57.
import { $, el, icon, ask, toast, request, themeSwitch, plural, Keys } from "/web/ui.js";
import { EpisodeTable } from "/table.js";
import { EpisodePage } from "/episode.js";

/** What the page knows: the file, its rows as far as they are read, and the marks. */
class Store extends EventTarget {
  async open() {
    Object.assign(this, await request("/api/dataset"));
    this.number = new Map(this.names.map((name, i) => [name, i]));
    this.rows = [];
    this.past = [];
    this.order = this.names.map((_, i) => i);
    this.setFile(this);
    this.readRows();
  }

  setFile({ masks }) {
    this.fileSplit = new Map();
    for (const split of ["train", "valid"]) for (const i of masks[split] ?? []) this.fileSplit.set(this.names[i], split);
  }

  async readRows() {
    while (this.rows.length < this.names.length) {
      try {
        const { rows } = await request(`/api/rows?since=${this.rows.length}`);
        for (const row of rows) this.rows.push(row);
        if (rows.length) this.dispatchEvent(new Event("rows"));
      } catch (error) { toast(error.message, "bad"); return; }
      await new Promise((done) => setTimeout(done, this.rows.length < 200 ? 60 : 300));
    }
  }

  mark(name) { return this.marks[name] ?? {}; }
  success(i) { return this.mark(this.names[i]).success ?? this.rows[i]?.success; }
  split(i) { return this.mark(this.names[i]).split ?? this.fileSplit.get(this.names[i]) ?? ""; }

  /** Set fields of the marks of `names`; the server has the last word. Undone by `undo`. */
  async change(names, fields) {
    const before = Object.fromEntries(names.map((name) => [name, this.marks[name] ?? null]));
    await this.send(Object.fromEntries(names.map((name) => [name, fields])), () => this.past.push(before));
  }

  async undo() {
    const before = this.past.pop();
    if (!before) { toast("Nothing to undo."); return; }
    await this.send(before);
  }

  async send(changes, then = () => {}) {
    try { this.marks = await request("/api/marks", changes); then(); } catch (error) { toast(error.message, "bad"); }
    this.dispatchEvent(new Event("marks"));
  }
}

const store = new Store();
const keys = new Keys();
let page = null;

function show() {
  const [, name, step] = location.hash.split("/").map(decodeURIComponent);
  const index = store.number.get(name);
  if (page instanceof EpisodePage && index === page.index) { page.go(Number(step) || 0); return; }
  page?.close();
  document.body.classList.toggle("listing", index === undefined);
  if (name && index === undefined) toast(`There is no episode ${name} in ${store.file}.`, "warn");
  page = index === undefined ? table : new EpisodePage(store, keys, index, Number(step) || 0);
  document.title = `${index === undefined ? "" : `${store.names[index]} · `}${store.file}`;
  $("#main").replaceChildren(page.node);
  page.opened();
}

async function save() {
  const marks = Object.values(store.marks);
  const count = (test) => marks.filter(test).length;
  const lines = [[count((m) => m.success !== null), "outcome changed"], [count((m) => m.deleted), "left out"],
    [count((m) => m.first !== null || m.last !== null), "trimmed"], [count((m) => m.split !== null), "assigned to train or valid"]];
  const name = el("input", { value: store.suggestion, "aria-label": "Name of the new file", spellcheck: "false", autocomplete: "off" });
  const body = [el("dl", { class: "facts" }, lines.filter(([n]) => n).flatMap(([n, words]) => [el("dt", {}, String(n)), el("dd", {}, words)])),
    el("label", { class: "field" }, el("span", {}, "New file, beside the old one, which stays as it is"), name),
    store.in_place ? el("p", { class: "small muted" }, "“Masks only” writes train and valid into this file itself, as safely as recording does, and changes nothing else.") : ""];
  const masks = store.in_place && count((m) => m.split !== null) ? [{ label: "Masks only", value: "masks" }] : [];
  const answer = await ask("Save what was marked", body, [{ label: "Cancel", value: "" }, ...masks, { label: "Save new file", value: "file", kind: "primary" }]);
  if (!answer) return;
  const busy = toast("Saving…", "info", 0);
  try {
    if (answer === "file") {
      const done = await request("/api/save", { name: name.value.trim() });
      toast(`Saved ${done.path}.${done.notes.length ? ` Not kept as it was: ${done.notes.join("; ")}.` : ""}`, "good", 12);
    } else {
      const done = await request("/api/save_masks", {});
      Object.assign(store, { masks: done.masks, marks: done.marks });
      store.setFile(done);
      store.past = [];
      toast(`Masks saved: ${Object.entries(done.counts).map(([mask, n]) => `${mask} ${n}`).join(", ")}.`, "good");
    }
  } catch (error) { toast(error.message, "bad"); }
  busy.remove();
  store.dispatchEvent(new Event("marks"));
}

function showMarked() {
  const count = Object.keys(store.marks).length;
  $("#marked").hidden = !count;
  $("#marked").textContent = `${count} marked`;
  saveButton.disabled = !count;
}

const saveButton = el("button", { class: "btn primary", id: "save", type: "button", onclick: save }, icon("save"), "Save…");
const undoButton = el("button", { class: "btn icon ghost", type: "button", "aria-label": "Undo", title: "Undo (u)", onclick: () => store.undo() }, icon("undo"));
const keysButton = el("button", { class: "btn icon ghost of-keys", type: "button", "aria-label": "Show the keys", title: "Keys (?)", onclick: () => keys.help() }, el("kbd", {}, "?"));
$("#actions").append(undoButton, saveButton, keysButton, themeSwitch());
keys.on("u", "undo the last mark", () => store.undo());

let table = null;
try {
  await store.open();
  $("#title").textContent = store.file;
  $("#summary").textContent = [store.task, store.environment !== store.task && store.environment, `${+store.control_hz.toFixed(2)} Hz`, plural(store.names.length, "episode")].filter(Boolean).join(" · ");
  table = new EpisodeTable(store, keys);
  store.addEventListener("marks", showMarked);
  addEventListener("hashchange", show);
  showMarked();
  show();
  for (const note of store.notes) toast(note, "warn", 10);
} catch (error) {
  $("#main").replaceChildren(el("p", { class: "empty" }, error.message));
}
