// Curves under one cursor: drawn once on a canvas, with the cursor and the spans as elements above it.
import { $, el } from "/web/ui.js";

/** Read what /curves sends: {steps, modes, groups: [{name, labels, columns, series: [Float32Array]}]}. */
export async function readCurves(index) {
  const answer = await fetch(`/api/episodes/${index}/curves`);
  if (!answer.ok) throw new Error((await answer.json()).error);
  const buffer = await answer.arrayBuffer(), length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  for (const group of header.groups) group.series = group.labels.map((_, k) => new Float32Array(buffer, 4 + length + 4 * (group.offset + k * header.steps), header.steps));
  return header;
}

/** Runs of the same mode as {mode, from, to} (steps, `to` exclusive). */
export function spansOf(modes) {
  const spans = [];
  modes.forEach((mode, t) => { const last = spans.at(-1); if (last?.mode === mode) last.to = t + 1; else spans.push({ mode, from: t, to: t + 1 }); });
  return spans;
}

const SPANS = { 1: "intervention", 2: "expert", 3: "disturbance" };

/** The steps at which somebody took over from the policy, the expert had its turn, or a hand was carried off. */
export function spanNodes(modes, steps) {
  return spansOf(modes).filter(({ mode }) => mode in SPANS).map(({ mode, from, to }) => el("div", { class: `span ${SPANS[mode]}`,
    style: `left:${100 * from / steps}%;width:${100 * (to - from) / steps}%` }));
}

/** Scrub with the pointer over `node`: calls go(step). */
export function scrubbing(node, steps, go) {
  const at = (event) => { const box = node.getBoundingClientRect(); go(Math.min(steps - 1, Math.max(0, Math.floor(steps * (event.clientX - box.left) / box.width)))); };
  node.addEventListener("pointerdown", (event) => { if (event.button === 0 && !event.target.closest(".event")) { node.setPointerCapture(event.pointerId); at(event); } });
  node.addEventListener("dragstart", (event) => event.preventDefault()); // a selection, dragged, would take the pointer away
  node.addEventListener("pointermove", (event) => { if (node.hasPointerCapture(event.pointerId)) at(event); });
}

const color = (k) => `var(--plot-${k % 8 + 1})`;
const written = (value) => Number.isNaN(value) ? "–" : Math.abs(value) >= 1000 || value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(3);
const TITLES = { actions: "Actions", policy_actions: "Policy's actions", expert_actions: "Expert's labels", rewards: "Reward", gate: "Gate score" };
const LEGEND = 16;

export class Plot {
  constructor(group, curves, go) {
    this.group = group;
    this.steps = curves.steps;
    this.hidden = new Set();
    this.canvas = el("canvas", { role: "img", "aria-label": `${group.name} over the steps` });
    this.cursor = el("div", { class: "cursor-line" });
    this.cuts = [el("div", { class: "span cut before" }), el("div", { class: "span cut after" })];
    this.area = el("div", { class: "plot" }, this.canvas, spanNodes(curves.modes, curves.steps), this.cuts, this.cursor);
    this.range = el("span", { class: "muted small" });
    this.values = [];
    const legend = el("div", { class: "legend" }, group.labels.slice(0, LEGEND).map((label, k) => {
      const value = el("b", {}, "");
      this.values.push(value);
      const button = el("button", { type: "button", "aria-pressed": "true", title: `Show or hide ${label}`, onclick: () => {
        if (!this.hidden.delete(k)) this.hidden.add(k);
        button.setAttribute("aria-pressed", String(!this.hidden.has(k)));
        this.draw();
      } }, el("i", { style: `background:${color(k)}` }), label, value);
      return button;
    }));
    if (group.columns > LEGEND) legend.append(el("span", {}, `and ${group.columns - LEGEND} more${group.columns > group.labels.length ? `, of which ${group.labels.length - LEGEND} are drawn` : ""}`));
    this.node = el("section", { class: "panel plot-box", "aria-label": group.name }, el("header", {}, el("h2", {}, TITLES[group.name] ?? group.name.replace("obs/", "")), el("span", { class: "spacer" }), this.range),
      el("div", { class: "area" }, this.area), legend);
    scrubbing(this.area, this.steps, go);
  }

  draw() {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight, ratio = devicePixelRatio || 1;
    if (!width) return;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const pen = this.canvas.getContext("2d"), style = getComputedStyle(this.canvas);
    pen.scale(ratio, ratio);
    let low = Infinity, high = -Infinity;
    const shown = this.group.series.map((series, k) => [series, k]).filter(([, k]) => !this.hidden.has(k));
    for (const [series] of shown) for (const value of series) { if (value < low) low = value; if (value > high) high = value; }
    if (low > high) [low, high] = [-1, 1];
    if (high - low < 1e-9) [low, high] = [low - 1, high + 1];
    this.range.textContent = `${written(low)} to ${written(high)}`;
    const y = (value) => 5 + (height - 10) * (high - value) / (high - low), x = (t) => width * (t + 0.5) / this.steps;
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.lineWidth = 1;
    for (const level of low < 0 && high > 0 ? [0] : []) { pen.beginPath(); pen.moveTo(0, y(level)); pen.lineTo(width, y(level)); pen.stroke(); }
    pen.lineWidth = 1.4;
    pen.lineJoin = "round";
    for (const [series, k] of shown) {
      pen.strokeStyle = style.getPropertyValue(`--plot-${k % 8 + 1}`);
      pen.beginPath();
      let down = false;
      for (let t = 0; t < series.length; t++) {
        const value = series[t];
        if (Number.isNaN(value)) { down = false; continue; }
        if (down) pen.lineTo(x(t), y(value));
        else { pen.moveTo(x(t) - (Number.isNaN(series[t + 1] ?? NaN) ? 1 : 0), y(value)); pen.lineTo(x(t), y(value)); }
        down = true;
      }
      pen.stroke();
    }
  }

  show(step) {
    this.cursor.style.left = `${100 * (step + 0.5) / this.steps}%`;
    this.values.forEach((value, k) => { value.textContent = written(this.group.series[k][step]); });
  }

  cut(first, last) { showCuts(this.cuts, first, last, this.steps); }
}

export function showCuts([before, after], first, last, steps) {
  before.hidden = !first;
  after.hidden = last == null || last >= steps - 1;
  before.style.width = `${100 * (first ?? 0) / steps}%`;
  after.style.left = `${100 * ((last ?? steps) + 1) / steps}%`;
}
