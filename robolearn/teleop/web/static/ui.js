// What robolearn's pages share: elements, requests, toasts, dialogs, keys, the theme switch.

export const $ = (selector, root = document) => root.querySelector(selector);

/** Make an element: el("button", {class: "btn", onclick: f, "aria-label": "Play"}, icon("play"), "Play").
 *  Texts are always texts: nothing that comes from a file is read as HTML. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const ICONS = {
  play: "M5 3.500v9l7.500-4.500z", pause: "M5 3.500v9M11 3.500v9", back: "M10 3.500L5.500 8l4.500 4.500", forward: "M6 3.500L10.500 8 6 12.500",
  first: "M4 3.500v9M12 3.500L7 8l5 4.500", last: "M12 3.500v9M4 3.500L9 8l-5 4.500", check: "M3 8.500l3.500 3.500L13 4.500",
  cross: "M4 4l8 8M12 4l-8 8", trash: "M3 4.500h10M6.500 4.500v-1.500h3v1.500M4.500 4.500l.5 8.500h6l.5-8.500M7 7v3.500M9 7v3.500",
  cut: "M5.500 10.500L12 3M10.500 10.500L4 3M4 10.200a1.700 1.700 0 1 0 .01 0zM12 10.200a1.700 1.700 0 1 0 .01 0z",
  save: "M3 3h8l2 2v8H3zM5.500 3v3.500h4V3M5.500 13V9.500h5V13", link: "M6.700 9.300l2.600-2.600M7.500 5.500l1.500-1.500a2.120 2.120 0 0 1 3 3L10.500 8.500M8.500 10.500L7 12a2.120 2.120 0 0 1-3-3l1.500-1.500",
  undo: "M4 6.500h5.500a3 3 0 0 1 0 6H7M4 6.500L6.500 4M4 6.500L6.500 9", up: "M8 12.500v-9M4.500 7L8 3.500 11.500 7", down: "M8 3.500v9M4.500 9L8 12.500 11.500 9",
  sun: "M8 5.200a2.800 2.800 0 1 0 .01 0zM8 1.500v1.200M8 13.300v1.200M1.500 8h1.200M13.300 8h1.200M3.400 3.400l.9.9M11.700 11.700l.9.9M12.600 3.400l-.9.9M4.300 11.700l-.9.9",
  moon: "M13 9.500A5.500 5.500 0 0 1 6.500 3a5.500 5.500 0 1 0 6.500 6.500z", list: "M3 4.500h10M3 8h10M3 11.500h10",
  record: "M8 4a4 4 0 1 0 .01 0z", stop: "M4.500 4.500h7v7h-7z", warn: "M8 2.500l6 10.500H2zM8 6.500v3M8 11.200v.1", hand: "M5 8V4.200a1 1 0 0 1 2 0V7M7 7V3.200a1 1 0 0 1 2 0V7M9 7V4a1 1 0 0 1 2 0v5.500a4 4 0 0 1-4 4c-1.500 0-2.300-.7-3-1.800L2.700 9.400a1 1 0 0 1 1.600-1.100L5 9.200",
  camera: "M2.500 5h2.300l1-1.500h4.400l1 1.500h2.300v7.500h-11zM8 6.500a2.200 2.200 0 1 0 .01 0z", gear: "M8 5.800a2.200 2.200 0 1 0 .01 0zM8 1.800v2M8 12.200v2M1.800 8h2M12.200 8h2M3.600 3.600l1.400 1.400M11 11l1.400 1.400M12.400 3.600L11 5M5 11l-1.400 1.400",
};

/** A drawing that screen readers skip; the button around it has the label. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", fill: "none", stroke: "currentColor", "stroke-width": "1.5",
    "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" })) svg.setAttribute(key, value);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** GET, or POST of `body` as JSON; resolves to the answer's JSON and rejects with the server's own words. */
export async function request(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("the program does not answer; is it still running?"); }
  if (answer.ok) return answer.json();
  const words = await answer.text();
  let message = words.trim();
  try { message = JSON.parse(words).error; } catch { /* plain text already */ }
  throw new Error(message || `status ${answer.status}`);
}

/** Say what happened, for some seconds; `bad` stays until it is closed. */
export function toast(message, kind = "info", seconds = kind === "bad" ? 0 : 5) {
  let box = $(".toasts");
  if (!box) document.body.append(box = el("div", { class: "toasts", role: "status", "aria-live": "polite" }));
  const close = el("button", { class: "btn ghost icon", "aria-label": "Dismiss", onclick: () => node.remove() }, icon("cross"));
  const node = el("div", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : undefined }, el("span", {}, message), close);
  while (box.children.length > 3) box.firstChild.remove();
  box.append(node);
  if (seconds) setTimeout(() => node.remove(), 1000 * seconds);
  return node;
}

/** Open a dialog; resolves to the value of the button that closed it, or "" (Escape). */
export function ask(title, body, buttons) {
  const box = el("dialog", { "aria-label": title });
  const footer = el("footer", {}, buttons.map(({ label, value, kind = "" }) =>
    el("button", { class: `btn ${kind}`, type: "button", onclick: () => box.close(value) }, label)));
  box.append(el("header", {}, el("h2", {}, title)), el("div", { class: "body" }, body), footer);
  document.body.append(box);
  box.showModal();
  return new Promise((resolve) => box.addEventListener("close", () => { box.remove(); resolve(box.returnValue); }));
}

/** A button that steps through the system's theme, light and dark. */
export function themeSwitch() {
  const root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const button = el("button", { class: "btn ghost icon", type: "button", onclick: () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("robolearn-theme", root.dataset.theme); } catch { /* chosen for this page only */ }
    show();
    dispatchEvent(new Event("themechange"));
  } });
  const show = () => {
    button.replaceChildren(icon(dark() ? "sun" : "moon"));
    button.setAttribute("aria-label", dark() ? "Switch to the light theme" : "Switch to the dark theme");
    button.title = button.getAttribute("aria-label");
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { show(); dispatchEvent(new Event("themechange")); });
  show();
  return button;
}

/** Keys of a page: keys.on("Space", "play or pause", run). `?` shows them all. Typing into a field is left alone. */
export class Keys {
  constructor() {
    this.table = [];
    this.on("?", "show these keys", () => this.help());
    addEventListener("keydown", (event) => this.press(event));
  }

  /** `names` as KeyboardEvent.key gives them, with Shift+ before names longer than a letter; several with spaces between.
   *  `when` says whether the key is of use now; of several the newest counts. Returns what `off` takes. */
  on(names, words, run, when = () => true) {
    const entry = { names: names.split(" "), words, run, when };
    this.table.push(entry);
    return entry;
  }

  off(entry) { this.table = this.table.filter((other) => other !== entry); }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    const target = event.target;
    const typing = target instanceof HTMLElement && target.matches("input:not([type=checkbox],[type=radio],[type=range]), textarea, select, [contenteditable]");
    if (typing) { if (event.key === "Escape") target.blur(); return; }
    let name = event.key === " " ? "Space" : event.key;
    if (event.shiftKey && name.length > 1) name = `Shift+${name}`;
    // A focused button or row is pressed with Space and Enter as everywhere else.
    if ((name === "Space" || name === "Enter") && target instanceof HTMLElement && target.matches("button, a, summary, [role=button]")) return;
    const entry = this.table.findLast((one) => one.names.includes(name) && one.when());
    if (!entry) return;
    event.preventDefault();
    entry.run(event);
  }

  help() {
    const rows = this.table.filter((entry) => entry.when()).flatMap(({ names, words }) => [
      el("span", {}, names.flatMap((name, i) => [i ? " " : "", el("kbd", {}, KEY_NAMES[name] ?? name.replace("Shift+", "⇧ ").replace("Arrow", ""))])), el("span", {}, words)]);
    ask("Keys", el("div", { class: "keys" }, rows), [{ label: "Close", value: "", kind: "primary" }]);
  }
}
const KEY_NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", "Shift+ArrowLeft": "⇧ ←", "Shift+ArrowRight": "⇧ →", Escape: "Esc" };

export const seconds = (value) => value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")} min`;

export const plural = (count, word) => `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`;
