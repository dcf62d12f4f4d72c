// The operator's motion over the last seconds, drawn as it comes.

import { el } from "/web/ui.js";

const SECONDS = 10;
const AXES = ["x", "y", "z", "roll", "pitch", "yaw"];

export class TwistPlot {
  constructor(canvas, legend) {
    this.canvas = canvas;
    this.legend = legend;
    this.points = [];
    this.axes = [];
    this.restyle();
  }

  /** `axes` are those that move anything here. */
  begin(axes) {
    this.axes = axes.map((name) => [name, AXES.indexOf(name)]);
    this.words = this.axes.map(([, index]) => el("b", {}, "0.00"));
    this.legend.replaceChildren(...this.axes.map(([name, index], i) => el("span", { style: `--c: var(--plot-${index + 1})` }, el("i"), `${name} `, this.words[i])));
    this.restyle();
  }

  restyle() {
    const style = getComputedStyle(document.documentElement);
    this.colours = AXES.map((_, index) => style.getPropertyValue(`--plot-${index + 1}`).trim());
    this.line = style.getPropertyValue("--line").trim();
  }

  add(twist, engaged) {
    const now = performance.now();
    this.points.push([now, engaged ? twist : [0, 0, 0, 0, 0, 0]]);
    while (this.points.length && now - this.points[0][0] > 1000 * SECONDS) this.points.shift();
  }

  draw() {
    const ratio = devicePixelRatio || 1, width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (this.canvas.width !== Math.round(width * ratio)) { this.canvas.width = Math.round(width * ratio); this.canvas.height = Math.round(height * ratio); }
    const pen = this.canvas.getContext("2d"), now = performance.now();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.strokeStyle = this.line;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(0, height / 2);
    pen.lineTo(width, height / 2);
    pen.stroke();
    pen.lineWidth = 1.8;
    pen.lineJoin = "round";
    const newest = this.points.at(-1)?.[1];
    this.axes.forEach(([, index], i) => {
      pen.strokeStyle = this.colours[index];
      pen.beginPath();
      for (const [time, twist] of this.points) pen.lineTo(width * (1 - (now - time) / (1000 * SECONDS)), height / 2 - twist[index] * (height / 2 - 6));
      pen.stroke();
      const words = (newest?.[index] ?? 0).toFixed(2);
      if (this.words[i].textContent !== words) this.words[i].textContent = words;
    });
  }
}

/** The policy's next actions (T, A) from left to right, each dimension a line; -1 is at the bottom and 1 at the top. */
export function drawPlan(canvas, plan) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); }
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.lineWidth = 1.8;
  const place = (step, value) => [plan.length > 1 ? 4 + (width - 8) * step / (plan.length - 1) : width / 2, height / 2 - value * (height / 2 - 6)];
  (plan[0] ?? []).forEach((_, dimension) => {
    pen.strokeStyle = pen.fillStyle = style.getPropertyValue(`--plot-${dimension % 6 + 1}`).trim();
    pen.beginPath();
    plan.forEach((action, step) => pen.lineTo(...place(step, action[dimension])));
    pen.stroke();
    const [x, y] = place(0, plan[0][dimension]);
    pen.fillRect(x - 2, y - 2, 4, 4);
  });
}

/** Where the policy means to take the tool, over a picture: points in shares of its width and height, the tool first. */
export function drawPath(canvas, image, points) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (points.length < 2 || image.hidden) return;
  // The picture keeps its shape inside its element, in the middle.
  const scale = Math.min(width / image.naturalWidth, height / image.naturalHeight);
  const shown = [image.naturalWidth * scale, image.naturalHeight * scale];
  const places = points.map(([x, y]) => [(width - shown[0]) / 2 + x * shown[0], (height - shown[1]) / 2 + y * shown[1]]);
  pen.lineJoin = pen.lineCap = "round";
  for (const [colour, thick] of [["#ffffffcc", 5], ["#d55e00", 2.5]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.beginPath();
    for (const place of places) pen.lineTo(...place);
    pen.stroke();
  }
  pen.fillStyle = "#d55e00";
  pen.beginPath();
  pen.arc(...places.at(-1), 4, 0, 2 * Math.PI);
  pen.fill();
}
