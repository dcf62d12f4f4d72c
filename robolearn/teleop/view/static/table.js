// All episodes: filters, sorting, and a table of which only the rows in sight exist.
import { $, el, icon, ask, plural } from "/web/ui.js";

const COLUMNS = [
  ["", "thumb", ""], ["episode", "name", ""], ["outcome", "", ""], ["steps", "num", ""], ["seconds", "num medium", "steps ÷ control rate"],
  ["operator", "medium", ""], ["source", "wide", ""], ["seed", "num wide", ""], ["started", "wide", ""], ["marks", "", ""],
];

export class EpisodeTable {
  constructor(store, keys) {
    this.store = store;
    this.sorting = { column: "episode", down: false };
    this.cursor = 0;
    this.scroll = 0;
    this.rowHeight = store.cameras.length ? 46 : 36;
    this.build();
    store.addEventListener("rows", () => this.refresh());
    store.addEventListener("marks", () => this.refresh());
    addEventListener("resize", () => this.draw());
    const here = () => this.node.isConnected;
    const marked = (fields) => () => { const i = store.order[this.cursor]; if (i !== undefined) store.change([store.names[i]], fields(store.mark(store.names[i]))); };
    keys.on("ArrowDown j", "next episode", () => this.move(1), here);
    keys.on("ArrowUp k", "previous episode", () => this.move(-1), here);
    keys.on("PageDown", "a page down", () => this.move(this.perPage()), here);
    keys.on("PageUp", "a page up", () => this.move(-this.perPage()), here);
    keys.on("Home", "first episode", () => this.move(-Infinity), here);
    keys.on("End", "last episode", () => this.move(Infinity), here);
    keys.on("Enter", "open the episode", () => this.openEpisode(this.cursor), here);
    keys.on("/", "search", () => $("input[type=search]", this.node).focus(), here);
    keys.on("s", "mark as success", marked(() => ({ success: true })), here);
    keys.on("f", "mark as failure", marked(() => ({ success: false })), here);
    keys.on("x Delete", "delete, or keep again", marked((mark) => ({ deleted: !mark.deleted })), here);
    keys.on("t", "assign to train", marked(() => ({ split: "train" })), here);
    keys.on("v", "assign to valid", marked(() => ({ split: "valid" })), here);
  }

  build() {
    const change = () => { this.cursor = 0; this.refresh(); this.table.scrollTop = 0; };
    const choice = (label, options) => {
      const select = el("select", { onchange: change, "data-filter": label }, options.map(([value, words]) => el("option", { value }, words)));
      return [el("label", { class: "field" }, el("span", {}, label), select), select];
    };
    const number = (label) => {
      const input = el("input", { type: "number", min: "0", inputmode: "numeric", oninput: change });
      return [el("label", { class: "field" }, el("span", {}, label), input), input];
    };
    const search = el("input", { type: "search", placeholder: "name, operator, seed", oninput: change });
    const [outcomeField, outcome] = choice("Outcome", [["", "all"], ["yes", "success"], ["no", "failure"], ["damaged", "unreadable"]]);
    const [sourceField, source] = choice("Source", [["", "all"]]);
    const [operatorField, operator] = choice("Operator", [["", "all"]]);
    const [markField, marks] = choice("Marks", [["", "all"], ["any", "marked"], ["none", "not marked"], ["deleted", "deleted"], ["trimmed", "trimmed"], ["train", "train"], ["valid", "valid"], ["neither", "neither train nor valid"]]);
    const [leastField, least] = number("Steps from"), [mostField, most] = number("to");
    this.filters = { search, outcome, source, operator, marks, least, most };
    this.count = el("span", { class: "count muted small", role: "status" });
    const all = el("button", { class: "btn", type: "button", onclick: () => this.markShown() }, icon("list"), "Mark all shown…");
    this.head = el("div", { class: "row head", role: "row" }, COLUMNS.map(([name, kind, hint]) =>
      el("span", { role: "columnheader", class: kind, "data-column": name }, name && el("button", { type: "button", title: hint || undefined, onclick: () => this.sortBy(name) }, name))));
    this.rows = el("div", { class: "rows", role: "rowgroup" });
    this.table = el("div", { class: "table", role: "grid", tabindex: "0", "aria-label": "Episodes", "aria-rowcount": String(this.store.names.length),
      onscroll: () => { this.scroll = this.table.scrollTop; this.draw(); } }, this.head, this.rows);
    this.table.style.setProperty("--row", `${this.rowHeight}px`);
    this.table.style.setProperty("--thumb", this.store.cameras.length ? "53px" : "0px");
    this.node = el("div", { style: "display:contents" },
      el("div", { class: "filters", role: "search" }, el("label", { class: "field" }, el("span", {}, "Search"), search), outcomeField, sourceField, operatorField, markField, leastField, mostField, all, this.count),
      this.table);
    this.refresh();
  }

  opened() {
    this.refresh();
    this.table.scrollTop = this.scroll;
    this.table.focus({ preventScroll: true });
  }
  close() {}

  sourceOf(row) { return row.round || row.source !== "demo" ? `${row.source} ${row.round}` : row.source; }

  /** Filter and sort anew; rows that are not read yet pass only where nothing is asked of them. */
  refresh() {
    this.offer("source", (row) => this.sourceOf(row));
    this.offer("operator", (row) => row.operator);
    const store = this.store, order = [];
    for (let i = 0; i < store.names.length; i++) if (this.passes(i)) order.push(i);
    const value = this.valueOf(this.sorting.column), sign = this.sorting.down ? -1 : 1;
    if (this.sorting.column !== "episode") {
      const keyed = order.map((i) => [value(i), i]);
      keyed.sort(([a, i], [b, j]) => (a === b ? i - j : a === undefined ? 1 : b === undefined ? -1 : a < b ? -sign : sign));
      order.splice(0, order.length, ...keyed.map(([, i]) => i));
    } else if (sign < 0) order.reverse();
    store.order = order;
    this.cursor = Math.min(this.cursor, Math.max(0, order.length - 1));
    const reading = store.rows.length < store.names.length ? ` · reading ${store.rows.length.toLocaleString()} of ${store.names.length.toLocaleString()}` : "";
    this.count.textContent = `${order.length.toLocaleString()} of ${plural(store.names.length, "episode")}${reading}`;
    for (const cell of this.head.children) {
      const mine = cell.dataset.column === this.sorting.column, button = $("button", cell);
      cell.setAttribute("aria-sort", mine ? (this.sorting.down ? "descending" : "ascending") : "none");
      $("svg", cell)?.remove();
      if (mine && button) button.append(icon(this.sorting.down ? "down" : "up"));
    }
    this.rows.style.height = `${order.length * this.rowHeight}px`;
    this.draw();
  }

  offer(name, value) {
    const select = this.filters[name], known = new Set([...select.options].map((option) => option.value));
    if (this.offered?.[name] === this.store.rows.length) return;
    (this.offered ??= {})[name] = this.store.rows.length;
    for (const row of this.store.rows) {
      const found = row.problem ? "" : value(row);
      if (found && !known.has(found)) { known.add(found); select.append(el("option", { value: found }, found)); }
    }
  }

  passes(i) {
    const { search, outcome, source, operator, marks, least, most } = this.filters, row = this.store.rows[i], name = this.store.names[i];
    const mark = this.store.mark(name), marked = name in this.store.marks, words = search.value.trim().toLowerCase();
    if (marks.value === "any" && !marked || marks.value === "none" && marked) return false;
    if (marks.value === "deleted" && !mark.deleted) return false;
    if (marks.value === "trimmed" && mark.first == null && mark.last == null) return false;
    if (["train", "valid"].includes(marks.value) && this.store.split(i) !== marks.value) return false;
    if (marks.value === "neither" && this.store.split(i)) return false;
    if (!row) return !(words || outcome.value || source.value || operator.value || least.value || most.value);
    if (outcome.value === "damaged") return Boolean(row.problem);
    if (row.problem) return !(outcome.value || source.value || operator.value || least.value || most.value);
    if (outcome.value && this.store.success(i) !== (outcome.value === "yes")) return false;
    if (source.value && this.sourceOf(row) !== source.value) return false;
    if (operator.value && row.operator !== operator.value) return false;
    if (least.value && row.steps < Number(least.value) || most.value && row.steps > Number(most.value)) return false;
    return !words || name.toLowerCase().includes(words) || row.operator.toLowerCase().includes(words) || String(row.seed) === words;
  }

  valueOf(column) {
    const { rows, marks, names } = this.store;
    return { outcome: (i) => this.store.success(i) === undefined ? undefined : Number(this.store.success(i)), steps: (i) => rows[i]?.steps, seconds: (i) => rows[i]?.steps, operator: (i) => rows[i]?.operator,
      source: (i) => rows[i] && !rows[i].problem ? this.sourceOf(rows[i]) : undefined, seed: (i) => rows[i]?.seed, started: (i) => rows[i]?.started_at,
      marks: (i) => names[i] in marks ? 0 : 1 }[column];
  }

  sortBy(column) {
    this.sorting = { column, down: this.sorting.column === column && !this.sorting.down };
    this.refresh();
  }

  perPage() { return Math.max(1, Math.floor((this.table.clientHeight - 32) / this.rowHeight) - 1); }

  move(by) {
    this.cursor = Math.min(Math.max(0, this.cursor + by), Math.max(0, this.store.order.length - 1));
    const top = this.cursor * this.rowHeight, room = this.table.clientHeight - 32 - this.rowHeight;
    if (top < this.table.scrollTop) this.table.scrollTop = top;
    else if (top > this.table.scrollTop + room) this.table.scrollTop = top - room;
    this.draw();
  }

  openEpisode(position) {
    const i = this.store.order[position];
    if (i !== undefined) location.hash = `#/${encodeURIComponent(this.store.names[i])}/0`;
  }

  /** Put the rows in sight into the document. */
  draw() {
    if (!this.node.isConnected && this.drawn) return;
    this.drawn = true;
    const height = this.table.clientHeight || 800, from = Math.max(0, Math.floor(this.table.scrollTop / this.rowHeight) - 6);
    const to = Math.min(this.store.order.length, from + Math.ceil(height / this.rowHeight) + 12), old = new Map([...this.rows.children].map((row) => [row.dataset.key, row]));
    const fresh = [];
    for (let position = from; position < to; position++) {
      const i = this.store.order[position], key = this.keyOf(i);
      const row = old.get(key) ?? this.row(i, key);
      row.style.top = `${position * this.rowHeight}px`;
      row.classList.toggle("cursor", position === this.cursor);
      row.setAttribute("aria-rowindex", String(position + 1));
      row.setAttribute("aria-selected", String(position === this.cursor));
      if (position === this.cursor) this.table.setAttribute("aria-activedescendant", row.id);
      fresh.push(row);
    }
    this.rows.replaceChildren(...fresh);
  }

  /** A row is made anew where anything that it shows has changed. */
  keyOf(i) { return `${i}|${this.store.rows[i] ? 1 : 0}|${JSON.stringify(this.store.marks[this.store.names[i]] ?? "")}|${this.store.split(i)}`; }

  row(i, key) {
    const { store } = this, row = store.rows[i], name = store.names[i], mark = store.mark(name);
    const cell = (kind, ...content) => el("span", { role: "gridcell", class: kind }, content);
    const thumb = store.cameras.length ? el("img", { class: "thumb", loading: "lazy", alt: "", src: `/api/episodes/${i}/thumbnail.jpg?v=${store.id}` }) : "";
    const cells = row?.problem ? [cell("", el("span", { class: "pill bad", title: row.problem }, "unreadable")), ...Array(6).fill("").map((_, k) => cell(COLUMNS[k + 3][1]))]
      : row ? [cell("", outcomePill(store.success(i))), cell("num", String(row.steps)), cell("num medium", (row.steps / store.control_hz).toFixed(1)), cell("medium", row.operator || "–"),
        cell("wide", this.sourceOf(row)), cell("num wide", row.seed < 0 ? "–" : String(row.seed)), cell("wide muted", row.started_at.slice(0, 16).replace("T", " ") || "–")]
        : COLUMNS.slice(2, 9).map(([, kind]) => cell(kind, "…"));
    return el("a", { class: `row ${mark.deleted ? "deleted" : ""}`, role: "row", tabindex: "-1", id: `row${i}`, "data-key": key, href: `#/${encodeURIComponent(name)}/0`, onclick: () => { this.cursor = store.order.indexOf(i); } },
      cell("", thumb), cell("name", name), ...cells, el("span", { role: "gridcell", class: "marks" }, markPills(mark, store.split(i))));
  }

  async markShown() {
    const names = this.store.order.map((i) => this.store.names[i]);
    const share = el("input", { type: "number", min: "1", max: "99", value: "10", "aria-label": "Percent for valid", style: "width:70px" });
    const answer = await ask(`Mark ${plural(names.length, "episode")} shown`, [el("p", { class: "muted" }, "Filters choose which. Nothing is written until you save; u undoes."),
      el("label", { class: "check" }, "For a random split, percent for valid:", share)],
    [{ label: "Success", value: "s" }, { label: "Failure", value: "f" }, { label: "Delete", value: "x", kind: "danger" }, { label: "Train", value: "train" }, { label: "Valid", value: "valid" }, { label: "Split at random", value: "random" }, { label: "Cancel", value: "" }]);
    const fields = { s: { success: true }, f: { success: false }, x: { deleted: true }, train: { split: "train" }, valid: { split: "valid" } }[answer];
    if (fields) await this.store.change(names, fields);
    if (answer !== "random" || !names.length) return;
    const shuffled = names.map((name) => [Math.random(), name]).sort(([a], [b]) => a - b).map(([, name]) => name);
    const count = Math.max(1, Math.round(names.length * Number(share.value) / 100));
    const valid = new Set(shuffled.slice(0, count));
    const before = Object.fromEntries(names.map((name) => [name, this.store.marks[name] ?? null]));
    await this.store.send(Object.fromEntries(names.map((name) => [name, { split: valid.has(name) ? "valid" : "train" }])), () => this.store.past.push(before));
  }
}

export function outcomePill(success) {
  return success === undefined ? el("span", { class: "pill" }, "…") : el("span", { class: `pill dot ${success ? "good" : "bad"}` }, success ? "success" : "failure");
}

export function markPills(mark, split) {
  return [mark.deleted && el("span", { class: "pill bad" }, "deleted"), mark.success != null && el("span", { class: "pill info", title: "outcome set by you" }, "set"),
    (mark.first != null || mark.last != null) && el("span", { class: "pill warn" }, "trimmed"), split && el("span", { class: "pill" }, split)].filter(Boolean);
}
