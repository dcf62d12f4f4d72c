// The page of a recording session: statuses and pictures come in, the operator's inputs go out.

import { $, ask, el, icon, plural, themeSwitch, toast } from "/web/ui.js";
import { Inputs } from "/inputs.js";
import { drawPath, drawPlan, TwistPlot } from "/plot.js";

const SEND_MS = 50;        // at least so often, so that silence means that the line is broken
const SILENT_MS = 600;     // without any status: the line is broken
const OLD_PICTURE_MS = 2000;
const RETRY_MS = 1000;
const FULL_FORCE_N = 20;

const STATES = { ready: "Ready", countdown: "Get ready", recording: "Recording", paused: "Paused", review: "Review", done: "The session is over" };
const SKIP = { ready: ["Skip", "forward"] };
const START = { ready: ["Start", "record"], countdown: ["Stop", "stop"], recording: ["Pause", "pause"], paused: ["Go on", "play"], review: ["Keep", "check"] };
const ACTIONS = [
  ["start", "Start", "record", "primary", "start, pause, go on, keep"], ["success", "Success", "check", "", "end: it is solved"],
  ["failure", "Failure", "cross", "", "end: it is not solved"], ["discard", "Discard", "trash", "danger", "forget this episode"],
  ["rerecord", "Again", "back", "", "the same scene again"], ["undo", "Undo", "undo", "", "take the last kept one back"],
  ["mark", "Mark", "link", "", "mark this moment"], ["rewind", "Rewind", "back", "", "take the last seconds back and drive from there"], ["quit", "Quit", "stop", "danger", "end the session"],
];
const AFTERWARDS = {
  dagger: "When the round is complete, the policy is trained on it; the next round has a page at the same link.",
  finetune: "The learner learns from all that was kept; its terminal says how it goes on, and how to sit down again.",
};
const HAND_OVER = { policy: ["takeover", "Take over", "hand"], operator: ["release", "Hand back", "play"] };
const DRIVING = { policy: "The policy drives", operator: "You drive" };
const MOTION = { "+x": "away", "-x": "back", "+y": "left", "-y": "right", "+z": "up", "-z": "down", "+yaw": "turn left", "-yaw": "turn right",
  "+pitch": "tip forward", "-pitch": "tip back", "+roll": "roll right", "-roll": "roll left" };
const STICK_WORDS = { x: "move", y: "move", z: "height", roll: "tilt", pitch: "tilt", yaw: "turn" };
const AXES = ["x", "y", "z", "roll", "pitch", "yaw"];
const PAD_NAMES = { left_x: "left stick ↔", left_y: "left stick ↕", right_x: "right stick ↔", right_y: "right stick ↕" };
const CAPS = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Space: "Space", Escape: "Esc", Backspace: "⌫", Enter: "⏎", ShiftLeft: "⇧", ShiftRight: "⇧ right",
  ControlLeft: "Ctrl", AltLeft: "Alt", BracketLeft: "[", BracketRight: "]", Minus: "-", Equal: "=", Comma: ",", Period: ".", Slash: "/" };

let hello = null, status = null, control = null, pictures = null, inputs = null, over = false;
let heardAt = -Infinity, layout = null;
const pressed = [];        // session buttons for the next message
let gripper = null;        // where the gripper was told to be, for the next message
const plot = new TwistPlot($("#plot"), $("#legend"));
const page = (() => {
  const fresh = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const known = sessionStorage.getItem("robolearn-page") ?? fresh;
    sessionStorage.setItem("robolearn-page", known);
    return known;
  } catch { return fresh; }
})();

const address = (path) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
const connected = () => control?.readyState === WebSocket.OPEN && performance.now() - heardAt < SILENT_MS;
const known = (text) => hello?.keys[text];
const capOf = (code) => CAPS[code] ?? layout?.get(code)?.toUpperCase() ?? code.replace(/^(Key|Digit)/, "").replace("Numpad", "Num ");
const isKey = (name) => /^[A-Z]/.test(name);

// ---- the line

function connect() {
  if (over) return;
  control = new WebSocket(address(`/control?page=${page}`));
  control.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    heardAt = performance.now();
    if (message.hello) return begin(message.hello);
    say({ seen: message.n });
    take(message);
  };
  control.onclose = () => { render(); if (!over) setTimeout(connect, RETRY_MS); };
}

/** A tab that is not seen asks for no pictures: they cost the program time to draw. */
function watch() {
  if (over || document.hidden || pictures?.readyState <= WebSocket.OPEN) return;
  const line = pictures = new WebSocket(address("/pictures"));
  line.binaryType = "arraybuffer";
  line.onmessage = async ({ data }) => {
    const camera = new DataView(data).getUint8(0);
    try { await views[camera]?.put(new Blob([new Uint8Array(data, 5)], { type: "image/jpeg" })); }
    finally { if (line.readyState === WebSocket.OPEN) line.send(String(camera)); }
  };
  line.onclose = () => setTimeout(watch, RETRY_MS);
}

function say(message) {
  if (control?.readyState === WebSocket.OPEN) control.send(JSON.stringify(message));
}

/** Send the whole state of the inputs; nothing of it adds up, but what was pressed. */
function sendInput() {
  if (!status?.you_drive || !inputs) return;
  const state = hello.drives ? inputs.state() : {};
  if (pressed.length) state.buttons = pressed.splice(0);
  if (gripper !== null) { state.gripper = gripper; gripper = null; }
  if (hello.drives || state.buttons) say({ input: state });
}

function press(button) {
  if (!connected()) return toast("The program does not answer; nothing was pressed.", "warn");
  if (!status?.you_drive) return toast("You are watching. Ask to drive first.", "warn");
  pressed.push(button);
  sendInput();
}

// ---- pictures

class View {
  constructor(name) {
    this.image = el("img", { alt: `What the camera ${name} sees`, draggable: "false" });
    this.hint = el("span", { class: "hint" }, "waiting for the first picture");
    this.path = el("canvas", { class: "path", "aria-hidden": "true" });
    this.figure = el("figure", { class: "picture", "data-camera": name }, this.image, this.path, this.hint, el("figcaption", {}, name));
    this.times = [];
    this.image.hidden = true;
  }

  async put(blob) {
    const old = this.image.src;
    this.image.src = URL.createObjectURL(blob);
    await this.image.decode().catch(() => {});
    if (old) URL.revokeObjectURL(old);
    if (this.image.hidden) {
      this.image.hidden = false;
      this.hint.hidden = true;
      this.figure.style.setProperty("--aspect", `${this.image.naturalWidth} / ${this.image.naturalHeight}`);
    }
    this.times.push(performance.now());
    if (this.times.length > 120) this.times.shift();
  }

  get rate() { const now = performance.now(); return this.times.filter((time) => now - time < 1000).length; }
  get isOld() { return this.times.length > 0 && performance.now() - this.times.at(-1) > OLD_PICTURE_MS; }
}
let views = [];
const alert = el("div", { class: "alert", role: "alert", hidden: true }, el("strong", {}), el("span", {}));

// ---- what does not change while the session runs

function begin(told) {
  const again = hello !== null;
  hello = told;
  if (again && views.length === hello.cameras.length) return;
  document.title = `${hello.task} – robolearn ${hello.verb}`;
  $("#task").textContent = `${hello.corrects ? "Correct" : "Record"} ${hello.task}`;
  $("#handover").hidden = $("#plan").hidden = !hello.corrects;
  $("#device").textContent = hello.device;
  views = hello.cameras.map((name) => new View(name));
  const box = $("#pictures");
  const [first, ...others] = views.map((view) => view.figure);
  box.replaceChildren(...(first ? [first] : []), ...(others.length ? [el("div", { class: "others" }, others)] : []));
  if (!first) box.append(el("figure", { class: "picture" }, el("span", { class: "hint" }, hello.no_pictures || "This environment cannot be drawn.")));
  box.firstChild.append(alert);
  showControls();
  plot.begin(hello.axes);
  $("#gripper").hidden = !hello.has_gripper;
  for (const name of ["operator", "notes"]) $(`#${name}`).maxLength = hello.longest[name];
  if (again) return;
  inputs = new Inputs(usedKeys(), sendInput);
  setInterval(sendInput, SEND_MS);
  addEventListener("keydown", sessionKeys);
  if (hello.drives) driveByPointer();
  showActions();
  watch();
  document.addEventListener("visibilitychange", () => document.hidden ? pictures?.close() : watch());
}

/** Keys that the page takes for itself; those of a profile also in fields would be typed, not driven. */
function usedKeys() {
  if (!hello.drives) return new Set();
  const profile = hello.profile, gripper = profile.gripper;
  return new Set([...Object.keys(profile.axes), ...Object.values(profile.modes).flatMap(Object.keys), ...profile.mode_inputs, ...gripper.toggle, ...gripper.open,
    ...gripper.close, gripper.squeeze, ...Object.keys(profile.buttons), ...profile.deadman, ...profile.fine].filter((name) => name && isKey(name)));
}

/** With a device of its own the session's keys still work here. */
function sessionKeys(event) {
  if (event.key === "?" && !event.target.matches?.("input, textarea")) return help();
  if (hello.drives || event.repeat || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  if (event.target.matches?.("input, textarea, select") || (["Space", "Enter"].includes(event.code) && event.target.matches?.("button, a"))) return;
  const button = known(event.code);
  if (!button) return;
  event.preventDefault();
  press(button);
}

function driveByPointer() {
  const uses = (name) => Object.keys(hello.profile.axes).concat(Object.values(hello.profile.modes).flatMap(Object.keys)).some((input) => input.startsWith(name));
  if (views.length && (uses("mouse") || uses("wheel"))) {
    inputs.drag(views[0].figure);
    views[0].figure.classList.add("drives");
  }
  const touches = matchMedia("(pointer: coarse)");
  const show = (event) => { if (uses("touch") && (touches.matches || event?.pointerType === "touch")) $("#touch").hidden = false; };
  touches.addEventListener("change", show);
  addEventListener("pointerdown", show);
  show();
  for (const stick of document.querySelectorAll(".stick")) {
    inputs.stick(stick, stick.dataset.side);
    const moves = ["y", "x"].map((axis) => hello.profile.axes[`touch_${stick.dataset.side}_${axis}`]?.slice(1)).filter((axis) => hello.axes.includes(axis));
    stick.dataset.label = [...new Set(moves.map((axis) => STICK_WORDS[axis]))].join(", ");
    stick.style.visibility = moves.length ? "" : "hidden";
  }
  $("#touch-gripper").hidden = !hello.has_gripper;
  $("#touch-gripper").onclick = () => { gripper = status?.gripper > 0 ? -1 : 1; sendInput(); };
}
const flip = (axis) => (axis[0] === "-" ? "+" : "-") + axis.slice(1);

function showActions() {
  $("#actions").replaceChildren(...ACTIONS.filter(([button]) => button !== "rewind" || hello.corrects).map(([button, label, drawing, kind, words]) => {
    const code = Object.keys(hello.keys).find((key) => hello.keys[key] === button);
    const node = el("button", { class: `btn ${kind}`, type: "button", "data-button": button, title: words, disabled: true,
      "aria-keyshortcuts": code, onclick: (event) => { if (event.detail) node.blur(); press(button); } }, icon(drawing), el("span", {}, label), code ? el("kbd", { "aria-hidden": "true" }, capOf(code)) : null);
    return node;
  }));
}

/** One button for both ways; it says where control would go. */
function renderHandOver(alive) {
  const node = $("#handover"), [button, label, drawing] = HAND_OVER[status.driver];
  node.disabled = !alive || !status.you_drive || !status.buttons.includes(button);
  if (node.dataset.button !== button) {
    const code = Object.keys(hello.keys).find((key) => hello.keys[key] === button);
    node.dataset.button = button;
    node.onclick = (event) => { if (event.detail) node.blur(); press(button); };
    node.classList.toggle("primary", button === "takeover");
    node.replaceChildren(icon(drawing), el("span", {}, label), ...(code ? [el("kbd", { "aria-hidden": "true" }, capOf(code))] : []));
  }
  drawPlan($("#plan canvas"), status.plan);
  views.forEach((view, camera) => drawPath(view.path, view.image, status.state === "recording" || status.state === "paused" ? status.path[camera] ?? [] : []));
  set($("#plan-steps"), plural(status.plan.length, "step"));
}

const caps = (names) => names.filter(isKey).map((code) => el("kbd", { "data-code": code, title: code }, capOf(code)));

/** [key caps, words] of everything that moves the robot here. */
function motions() {
  const profile = hello.profile, rows = [];
  const byAxis = (table, note) => {
    for (const axis of AXES.filter((name) => hello.axes.includes(name) && !profile.locks.includes(name))) {
      for (const sign of "+-") {
        const keys = Object.keys(table).filter((name) => table[name] === sign + axis);
        if (keys.some(isKey)) rows.push([keys, MOTION[sign + axis] + note]);
      }
    }
  };
  byAxis(profile.axes, "");
  for (const [mode, table] of Object.entries(profile.modes)) byAxis(table, ` (${mode})`);
  if (hello.has_gripper) {
    const { toggle, open, close, squeeze } = profile.gripper;
    rows.push([toggle, "gripper"], [open, "open"], [close, "close"], [squeeze ? [squeeze] : [], "squeeze"]);
  }
  rows.push([profile.fine, "slowly"], [profile.deadman, "hold to drive"], [profile.mode_inputs, "next mode"]);
  return rows.filter(([names]) => names.some(isKey));
}

function showControls() {
  const body = $("#controls .body");
  if (!hello.profile) return body.replaceChildren(el("p", { class: "notice" }, `The device “${hello.device}” drives by itself. The buttons of this page work.`));
  if (!hello.drives) return body.replaceChildren(el("p", { class: "notice" }, `You drive with the device “${hello.device}”. The buttons of this page and their keys work, too.`));
  const rows = motions().map(([names, words]) => el("div", {}, caps(names), el("span", {}, words)));
  const others = [["left_", "gamepad"], ["touch_", "touch sticks"], ["mouse_", "dragging on the picture"]].filter(([start]) => Object.keys(hello.profile.axes).some((name) => name.startsWith(start))).map(([, words]) => words);
  body.replaceChildren(el("div", { class: "controls" }, rows, el("div", { class: "wide small" }, el("span", { id: "pad" }, others.length ? `Also: ${others.join(", ")}.` : ""))));
}

function help() {
  if ($("dialog[open]") || !hello) return;
  const row = (keys, words) => [el("span", {}, keys), el("span", {}, words)];
  const more = hello.corrects ? [["takeover", "", "", "", "take over from the policy"], ["release", "", "", "", "hand back to the policy"]] : [];
  const session = ACTIONS.concat([["pause", "Pause", "", "", "pause and go on"]], more).map(([button, , , , words]) => row(caps(Object.keys(hello.keys).filter((key) => hello.keys[key] === button)), words)).filter(([keys]) => keys.children.length);
  const drive = hello.drives ? motions().map(([names, words]) => row(caps(names), words)) : [];
  const parts = { Session: [...session, row([el("kbd", {}, "?")], "show these keys")], Motion: drive, Gamepad: hello.drives ? padHelp() : [] };
  const sections = Object.entries(parts).filter(([, rows]) => rows.length).map(([title, rows]) => el("section", {}, el("h3", {}, title), el("div", { class: "keys" }, rows.flat())));
  ask("Keys", el("div", { class: "help" }, sections), [{ label: "Close", value: "", kind: "primary" }]);
}

function padHelp() {
  const profile = hello.profile, rows = {};
  const add = (name, words) => { if (!isKey(name) && !/^(touch|mouse|wheel)/.test(name)) (rows[words] ??= []).push(PAD_NAMES[name] ?? (name.length === 1 ? name.toUpperCase() : name.replace("dpad_", "d-pad ").replace("_", " "))); };
  for (const [name, axis] of Object.entries(profile.axes)) if (hello.axes.includes(axis.slice(1))) add(name, `${MOTION[flip(axis)]} and ${MOTION[axis]}`);
  for (const name of profile.gripper.toggle) add(name, "gripper");
  for (const name of profile.gripper.open) add(name, "open");
  for (const name of profile.gripper.close) add(name, "close");
  for (const name of profile.fine) add(name, "slowly");
  const words = { pause: "pause and go on", ...Object.fromEntries(ACTIONS.map(([button, , , , text]) => [button, text])) };
  for (const [name, button] of Object.entries(profile.buttons)) add(name, words[button] ?? button);
  return Object.entries(rows).map(([words, names]) => [el("span", { class: "small muted" }, names.join(", ")), el("span", {}, words)]);
}

// ---- what changes

function take(told) {
  status = told;
  if (status.state === "done") return end();
  plot.add(status.twist, status.engaged);
}

/** Why the robot holds still, in two lines; null where it does what it is told. */
function stillness() {
  if (!status) return null;
  if (!connected()) return ["Connection lost", "The robot holds still. Trying to reach the program again…"];
  if (status.device_lost) return ["The device is gone", status.message];
  if (!["recording", "countdown", "ready"].includes(status.state) || status.engaged || !hello.drives) return null;
  if (!status.you_drive || status.driver === "policy") return null;
  if (!inputs.focused) return ["The robot holds still", "This page does not have the keyboard. Click here to go on."];
  if (hello.profile.deadman.length) return status.state === "recording" ? ["The robot holds still", `Hold ${hello.profile.deadman.map((name) => isKey(name) ? capOf(name) : name.replace("_", " ")).join(" or ")} to drive.`] : null;
  return status.input_age_ms > 200 || status.input_age_ms === null ? ["The robot holds still", "Nothing arrives from this page; the line is slow."] : null;
}

const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };

function render() {
  if (over) return;
  const alive = connected(), reason = stillness();
  alert.hidden = !reason;
  if (reason) { set(alert.children[0], reason[0]); set(alert.children[1], reason[1]); }
  const line = $("#line");
  line.className = `pill dot ${!alive ? "bad" : status?.rtt_ms > 150 ? "warn" : "good"}`;
  set(line, !alive ? "offline" : status?.rtt_ms == null ? "online" : `${status.rtt_ms < 10 ? status.rtt_ms.toFixed(1) : status.rtt_ms.toFixed(0)} ms`);
  for (const view of views) view.figure.classList.toggle("old", view.isOld || !alive);
  if (!status || !hello) return;
  // A world that stands still is drawn now and then, which says nothing about the line.
  const shown = views.length && status.state === "recording" ? `${plural(Math.max(...views.map((view) => view.rate)), "picture")}/s · ` : "";
  set($("#rates"), `${shown}${hello.hz} Hz`);
  renderState(alive);
  renderSeat();
  renderRobot();
  renderTiming();
  for (const cap of document.querySelectorAll("kbd[data-code]")) cap.classList.toggle("held", inputs.held.has(cap.dataset.code));
  if (inputs.padName && $("#pad")) set($("#pad"), `Gamepad: ${inputs.padName}`);
  for (const name of ["operator", "notes"]) {
    const node = $(`#${name}`);
    if (document.activeElement !== node && !node.dataset.waits && node.value !== status[name]) node.value = status[name];
    node.disabled = !status.you_drive;
  }
}

const keptWords = () => status.target === null ? `${status.kept}` : `${status.kept} of ${status.target}`;

function renderState(alive) {
  const box = $("#state"), { state, outcome } = status;
  box.dataset.state = alive ? state : "lost";
  if (state === "review" && outcome !== null) box.dataset.outcome = outcome ? "good" : "bad"; else delete box.dataset.outcome;
  let name = STATES[state];
  if (hello.corrects && state === "recording") { name = DRIVING[status.driver]; box.dataset.driver = status.driver; } else delete box.dataset.driver;
  if (status.question) name = "The robot asks";
  if (state === "review") name = `${outcome ? "Solved" : "Not solved"}${status.asked ? " – keep it?" : ""}`;
  set($("#state-name"), alive ? name : "Connection lost");
  set($("#clock"), state === "countdown" ? `${Math.ceil(status.countdown_s)}` : state === "ready" ? "" : `${status.seconds.toFixed(1)} / ${status.max_seconds.toFixed(0)} s`);
  set($("#message"), status.message || (state === "ready" ? `Scene ${status.seed}` : ""));
  $("#time-meter").style.setProperty("--value", status.seconds / status.max_seconds);
  set($("#kept"), `${keptWords()} kept${status.discarded ? `, ${status.discarded} not` : ""}`);
  $("#kept-meter").hidden = status.target === null;
  $("#kept-meter").style.setProperty("--value", status.target === null ? 0 : status.kept / status.target);
  if (hello.corrects) renderHandOver(alive);
  for (const node of $("#actions").children) {
    const button = node.dataset.button;
    node.disabled = !alive || !status.you_drive || !status.buttons.includes(button);
    const changing = { start: START[state] ?? START.ready, discard: SKIP[state] ?? ["Discard", "trash"] }[button];
    if (changing && node.children[1].textContent !== changing[0]) {
      node.children[1].textContent = changing[0];
      node.firstChild.replaceWith(icon(changing[1]));
    }
  }
}

function renderSeat() {
  const panel = $("#seat"), key = status.you_drive ? (status.asked_for ? "asked" : "") : status.you_ask ? "asking" : "watching";
  panel.hidden = !key;
  const wait = `${Math.ceil(status.patience_s ?? 0)} s`;
  if (panel.dataset.key !== key) {
    panel.dataset.key = key;
    const answer = (give, label, kind) => el("button", { class: `btn ${kind}`, type: "button", onclick: () => say({ give }) }, label);
    $(".body", panel).replaceChildren(...{
      "": [],
      asked: [el("strong", { role: "alert" }, "Somebody asks to drive"), el("span", { class: "muted wait" }), el("span", { class: "toolbar" }, answer(true, "Hand over", "primary"), answer(false, "Keep driving", ""))],
      asking: [el("strong", {}, "You asked to drive"), el("span", { class: "muted wait" })],
      watching: [el("strong", {}, "You are watching"), el("span", { class: "muted" }, "Another page drives."), el("button", { class: "btn primary", type: "button", id: "ask", onclick: () => say({ ask: true }) }, icon("hand"), "Ask to drive")],
    }[key]);
  }
  const words = $(".wait", panel);
  if (words) set(words, key === "asked" ? `Without an answer, and while you do nothing, it is theirs in ${wait}.` : `It is yours when the driver agrees, or does nothing for ${wait}.`);
}

function renderRobot() {
  const mode = $("#mode");
  mode.hidden = !status.mode;
  set(mode, status.mode ?? "");
  plot.draw();
  if (status.gripper !== null) {
    $("#gripper .meter").style.setProperty("--value", (status.gripper + 1) / 2);
    set($("#gripper-word"), status.gripper > 0.5 ? "closed" : status.gripper < -0.5 ? "open" : `${Math.round(50 * (status.gripper + 1))} %`);
    set($("#touch-gripper"), status.gripper > 0 ? "Open gripper" : "Close gripper");
  }
  renderForces(Object.entries(status.force_n));
  const box = $("#numbers");
  for (const [name, values] of Object.entries(status.robot)) {
    let node = $(`output[data-key="${CSS.escape(name)}"]`, box);
    if (!node) {
      node = el("output", { "data-key": name, "aria-live": "off" });
      box.append(el("div", {}, el("h3", {}, name), node));
    }
    set(node, values.map((value) => value === null ? "–" : `${value < 0 ? "" : "\u2007"}${value.toFixed(3)}`).join(" "));
  }
}

function renderForces(forces) {
  const box = $("#forces");
  box.hidden = !forces.length;
  if (box.children.length !== forces.length) box.replaceChildren(...forces.map(([name]) => el("div", { class: "gripper" }, el("span", { class: "muted small" }, `Force ${name}`), el("span", { class: "meter" }), el("span", { class: "small" }))));
  forces.forEach(([, newtons], i) => {
    const [, meter, words] = box.children[i].children;
    meter.style.setProperty("--value", newtons / FULL_FORCE_N);
    set(words, `${newtons.toFixed(1)} N`);
  });
}

function renderTiming() {
  const late = $("#late"), share = status.ticks ? status.late / status.ticks : 0;
  late.className = `pill ${share > 0.02 ? "bad" : status.late ? "warn" : "good"}`;
  late.title = Object.entries(status.late_by).map(([name, steps]) => `${steps} by ${name}`).join(", ");
  set(late, status.late ? `${status.late} of ${status.ticks} late` : "in time");
  $("#slow").hidden = !status.slow;
  set($("#slow"), status.slow ?? "");
  const rows = [...Object.entries(status.costs_ms).map(([name, ms]) => [name, `${ms.toFixed(2)} ms`]), ["pages", `${status.pages}`]];
  if (status.refused) rows.push(["messages left out", `${status.refused}`]);
  const box = $("#costs");
  if (box.children.length !== 2 * rows.length) box.replaceChildren(...rows.flatMap(([name]) => [el("dt", {}, name), el("dd", {})]));
  rows.forEach(([, words], i) => set(box.children[2 * i + 1], words));
}

function end() {
  over = true;
  control.close();
  pictures?.close();
  const words = AFTERWARDS[hello.verb];
  const next = words ? [el("p", {}, words)] : hello.path ? [el("p", {}, "Look at what was recorded, then train on it:"), el("code", {}, `robolearn view ${hello.path}`), el("code", {}, `robolearn train --dataset ${hello.path}`),
    ...(status.kept < status.target ? [el("p", {}, "To go on where this session ended:"), el("code", {}, `robolearn record --config ${hello.path}.yaml --resume`)] : [])] : [];
  $("#main").replaceWith(el("main", { class: "end-page", style: "display: block" }, el("section", { class: "panel end", role: "status" },
    el("h2", {}, STATES.done), status.error ? el("p", { class: "pill bad", style: "white-space: normal" }, status.error) : null,
    el("p", {}, `${status.target === null ? `${plural(status.kept, "episode")} kept` : `${keptWords()} episodes are kept`}${status.discarded ? `; ${status.discarded} were not` : ""}.`), next)));
  set($("#line"), "ended");
  $("#line").className = "pill";
  set($("#kept"), "");
  $("#progress").hidden = true;
  set($("#rates"), "");
}

// ---- once

for (const name of ["operator", "notes"]) {
  const node = $(`#${name}`);
  node.oninput = () => { node.dataset.waits = "1"; };
  node.onchange = () => { say({ [name]: node.value }); setTimeout(() => { delete node.dataset.waits; }, 500); };
  node.onkeydown = (event) => { if (event.key === "Escape" || (event.key === "Enter" && (name === "operator" || event.ctrlKey))) node.blur(); };
}
$("#theme").replaceWith(themeSwitch());
$("#help").onclick = (event) => { event.currentTarget.blur(); help(); };
addEventListener("themechange", () => plot.restyle());
navigator.keyboard?.getLayoutMap?.().then((map) => { layout = map; if (hello) { showControls(); showActions(); } }).catch(() => {});
const frame = () => { if (!over) { render(); requestAnimationFrame(frame); } };
requestAnimationFrame(frame);
connect();
