// One episode: its pictures, its scene and its curves under one cursor, and the marks that a person sets.
import { $, el, icon, toast, request, seconds } from "/web/ui.js";
import { outcomePill } from "/table.js";
import { PictureLine } from "/pictures.js";
import { Plot, readCurves, scrubbing, showCuts, spanNodes } from "/plots.js";

const SPEEDS = [0.25, 0.5, 1, 2, 4];

export class EpisodePage {
  constructor(store, keys, index, step) {
    this.store = store;
    this.index = index;
    this.name = store.names[index];
    this.place = store.order.indexOf(index);
    this.step = step;
    this.speed = 1;
    this.lines = [];
    this.plots = [];
    this.angle = { azimuth: 140, elevation: -25, zoom: 1 };
    this.stop = new AbortController();
    this.node = el("div", { class: "episode" }, el("p", { class: "empty" }, "Reading…"));
    const here = () => this.node.isConnected && Boolean(this.facts), on = (names, words, run) => bound.push(keys.on(names, words, run, here)), bound = [];
    on("Space", "play or pause", () => this.toggle());
    on("ArrowLeft", "a step back", () => this.seek(this.step - 1));
    on("ArrowRight", "a step forward", () => this.seek(this.step + 1));
    on("Shift+ArrowLeft", "ten steps back", () => this.seek(this.step - 10));
    on("Shift+ArrowRight", "ten steps forward", () => this.seek(this.step + 10));
    on("Home", "first step", () => this.seek(0));
    on("End", "last step", () => this.seek(Infinity));
    on("ArrowUp k", "previous episode shown in the table", () => this.neighbour(-1));
    on("ArrowDown j", "next episode shown in the table", () => this.neighbour(1));
    on("- ,", "slower", () => this.faster(-1));
    on("+ .", "faster", () => this.faster(1));
    on("s", "mark as success", () => this.mark({ success: true }));
    on("f", "mark as failure", () => this.mark({ success: false }));
    on("x Delete", "delete, or keep again", () => this.mark({ deleted: !this.marks().deleted }));
    on("[", "trim: begin at this step", () => this.mark({ first: this.step || null }));
    on("]", "trim: end at this step", () => this.mark({ last: this.step === this.steps - 1 ? null : this.step }));
    on("c", "trim: keep all steps", () => this.mark({ first: null, last: null }));
    on("t", "assign to train", () => this.mark({ split: "train" }));
    on("v", "assign to valid", () => this.mark({ split: "valid" }));
    this.stop.signal.addEventListener("abort", () => bound.forEach((entry) => keys.off(entry)));
    on("Escape", "back to all episodes", () => { location.hash = "#/"; });
  }

  marks() { return this.store.mark(this.name); }
  mark(fields) { return this.store.change([this.name], fields); }

  async opened() {
    const options = { signal: this.stop.signal };
    try { [this.facts, this.curves] = await Promise.all([request(`/api/episodes/${this.index}`), readCurves(this.index)]); } catch (error) {
      this.node.replaceChildren(el("div", { class: "empty" }, el("p", {}, error.message), el("p", {}, el("a", { href: "#/" }, "All episodes"))));
      return;
    }
    if (this.stop.signal.aborted) return;
    this.steps = this.facts.steps;
    this.build();
    this.store.addEventListener("marks", () => this.showMarks(), options);
    addEventListener("resize", () => this.drawPlots(), options);
    addEventListener("themechange", () => this.drawPlots(), options);
    this.drawPlots();
    this.showMarks();
    this.go(this.step);
    this.openScene();
    this.ticking = requestAnimationFrame((now) => this.tick(now));
  }

  close() {
    this.stop.abort();
    for (const [line] of this.lines) line.close();
    cancelAnimationFrame(this.ticking);
    clearTimeout(this.linking);
  }

  build() {
    const { store, facts } = this, canvases = store.cameras.map((key) => screen(`camera ${key}`));
    this.pictures = el("div", { class: "pictures panel" }, store.cameras.map((key, i) => el("figure", { class: "picture" }, canvases[i], el("figcaption", {}, key))));
    if (canvases.length) this.lines.push([new PictureLine(canvases, { onerror: (error) => this.complain(error) }), (step) => ({ episode: this.index, step, cameras: store.cameras })]);
    const button = (name, label, run) => el("button", { class: "btn icon", type: "button", "aria-label": label, title: label, onclick: run }, icon(name));
    this.playButton = button("play", "Play", () => this.toggle());
    this.playButton.classList.add("primary");
    this.speedChoice = el("select", { "aria-label": "Speed", onchange: () => { this.speed = Number(this.speedChoice.value); } }, SPEEDS.map((speed) => el("option", { value: speed, selected: speed === 1 }, `${speed}×`)));
    this.read = el("span", { class: "read" });
    this.rate = el("span", { class: "muted small" });
    this.played = el("div", { class: "played" });
    this.cursor = el("div", { class: "cursor-line" });
    this.cuts = [el("div", { class: "span cut before" }), el("div", { class: "span cut after" })];
    const flags = facts.events.map((event) => el("button", { class: `event ${event.kind}`, type: "button", tabindex: "-1", style: `left:${100 * (event.step + 0.5) / this.steps}%`,
      title: `${event.kind} at step ${event.step}${event.reason ? `: ${event.reason}` : ""}`, "aria-hidden": "true", onclick: () => this.seek(event.step) }));
    this.timeline = el("div", { class: "timeline", role: "slider", tabindex: "0", "aria-label": "Step", "aria-valuemin": "0", "aria-valuemax": String(this.steps - 1) },
      spanNodes(this.curves.modes, this.steps), this.played, flags, this.cuts, this.cursor);
    scrubbing(this.timeline, this.steps, (step) => this.seek(step));
    const transport = el("div", { class: "panel transport" }, this.timeline, el("div", { class: "toolbar" }, button("first", "First step", () => this.seek(0)), button("back", "A step back", () => this.seek(this.step - 1)), this.playButton,
      button("forward", "A step forward", () => this.seek(this.step + 1)), button("last", "Last step", () => this.seek(Infinity)), this.speedChoice, this.read, el("span", { class: "spacer" }), this.rate,
      el("button", { class: "btn", type: "button", onclick: () => this.share() }, icon("link"), "Copy link")));
    this.plots = this.curves.groups.map((group) => new Plot(group, this.curves, (step) => this.seek(step)));
    this.node.replaceChildren(
      el("div", { class: "stage" }, this.heading(), this.pictures, transport, el("div", { class: "sides" }, this.marking(), this.about())),
      el("div", { class: "plots", tabindex: "-1" }, this.plots.map((plot) => plot.node)));
  }

  heading() {
    this.outcome = el("span", {});
    return el("div", { class: "toolbar" }, el("a", { class: "btn", href: "#/" }, icon("list"), "All"),
      el("button", { class: "btn icon", type: "button", "aria-label": "Previous episode", title: "Previous episode (k)", onclick: () => this.neighbour(-1) }, icon("up")),
      el("button", { class: "btn icon", type: "button", "aria-label": "Next episode", title: "Next episode (j)", onclick: () => this.neighbour(1) }, icon("down")), el("h2", {}, this.name), this.outcome);
  }

  marking() {
    const toggle = (label, kind, run, key, name) => el("button", { type: "button", class: kind, onclick: run, "data-mark": name }, label, key ? el("kbd", {}, key) : "");
    const line = (label, ...content) => el("div", { class: "line", role: "group", "aria-label": label }, el("span", {}, label), ...content);
    this.trimmed = el("span", { class: "small muted" });
    this.marksNode = el("section", { class: "panel", "aria-label": "Marks" }, el("header", {}, el("h2", {}, "Marks"), el("span", { class: "spacer" }), el("span", { class: "small muted" }, "nothing is written until you save")),
      el("div", { class: "body marking" },
        line("Outcome", el("div", { class: "segmented" }, toggle("Success", "good", () => this.mark({ success: true }), "s", "success"), toggle("Failure", "bad", () => this.mark({ success: false }), "f", "failure"), toggle("Recorded", "", () => this.mark({ success: null }), "", "recorded"))),
        line("Trim", el("div", { class: "toolbar" }, toggle("Begin here", "btn", () => this.mark({ first: this.step || null }), "[", "first"), toggle("End here", "btn", () => this.mark({ last: this.step === this.steps - 1 ? null : this.step }), "]", "last"), this.trimmed)),
        line("Split", el("div", { class: "segmented" }, toggle("Train", "", () => this.mark({ split: "train" }), "t", "train"), toggle("Valid", "", () => this.mark({ split: "valid" }), "v", "valid"), toggle("Neither", "", () => this.mark({ split: "" }), "", "neither"))),
        line("Episode", toggle(el("span", {}, "Delete"), "btn danger", () => this.mark({ deleted: !this.marks().deleted }), "x", "deleted"))));
    return this.marksNode;
  }

  about() {
    const f = this.facts, facts = [["Length", `${f.steps} steps, ${seconds(f.seconds)} measured`], ["Operator", f.operator], ["Device", f.device], ["Source", f.round || f.source !== "demo" ? `${f.source}, round ${f.round}` : f.source],
      ["Seed", f.seed < 0 ? "" : f.seed], ["Started", f.started_at.replace("T", " ").slice(0, 19)], ["Policy", f.policy], ["Late steps", f.late_steps || ""], ["Notes", f.notes], ["Recorded", f.success ? "success" : "failure"]].filter(([, value]) => value !== "");
    const events = f.events.map((event) => el("li", {}, el("button", { type: "button", onclick: () => this.seek(event.step) }, el("span", {}, String(event.step)), el("b", {}, event.kind), el("span", { class: "muted" }, event.reason))));
    return el("section", { class: "panel", "aria-label": "Facts" }, el("header", {}, el("h2", {}, "Facts")), el("div", { class: "body grid" },
      el("dl", { class: "facts" }, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])), events.length ? el("ul", { class: "events", "aria-label": "Events" }, events) : ""));
  }

  async openScene() {
    const waiting = el("figure", { class: "picture" }, el("p", { class: "hint" }, "Building the 3-D scene…"));
    this.pictures.append(waiting);
    let scene;
    try { scene = await request(`/api/episodes/${this.index}/scene`); } catch (error) { scene = { available: false, reason: error.message }; }
    waiting.remove();
    if (this.stop.signal.aborted) return;
    if (!scene.available) { this.pictures.append(el("p", { class: "notice" }, el("b", {}, "No 3-D scene. "), scene.reason)); return; }
    const image = screen("3-D scene"), choice = el("select", { "aria-label": "Camera of the scene", onchange: () => this.show() }, scene.turns && el("option", { value: "free" }, "free camera"), scene.cameras.map((name) => el("option", { value: name }, name)));
    const figure = el("figure", { class: `picture scene ${scene.turns ? "turns" : ""}` }, image, el("figcaption", {}, scene.turns ? "scene · drag to turn" : "scene"), scene.turns ? choice : "");
    this.pictures.append(figure);
    this.lines.push([new PictureLine([image], { inFlight: 1, onerror: (error) => this.complain(error) }), (step) => ({ episode: this.index, step, view: { camera: choice.value, ...this.angle } })]);
    if (scene.turns) this.turning(figure, choice);
    this.show();
  }

  turning(figure, choice) {
    figure.addEventListener("pointerdown", (event) => { if (event.target !== choice) { event.preventDefault(); figure.setPointerCapture(event.pointerId); } });
    figure.addEventListener("pointermove", (event) => {
      if (!figure.hasPointerCapture(event.pointerId)) return;
      this.angle.azimuth -= 0.5 * event.movementX;
      this.angle.elevation = Math.max(-89, Math.min(89, this.angle.elevation - 0.5 * event.movementY));
      choice.value = "free";
      this.show();
    });
    figure.addEventListener("wheel", (event) => { event.preventDefault(); this.angle.zoom = Math.max(0.2, Math.min(5, this.angle.zoom * Math.exp(0.001 * event.deltaY))); choice.value = "free"; this.show(); }, { passive: false });
  }

  drawPlots() { for (const plot of this.plots) plot.draw(); }

  showMarks() {
    if (!this.marksNode) return;
    const mark = this.marks(), split = this.store.split(this.index), first = mark.first ?? null, last = mark.last ?? null;
    const pressed = { success: mark.success === true, failure: mark.success === false, recorded: mark.success == null, first: first !== null, last: last !== null, train: split === "train", valid: split === "valid", neither: split === "", deleted: Boolean(mark.deleted) };
    for (const [name, on] of Object.entries(pressed)) $(`[data-mark=${name}]`, this.marksNode).setAttribute("aria-pressed", String(on));
    $("[data-mark=deleted] span", this.marksNode).textContent = mark.deleted ? "Deleted: keep again" : "Delete";
    this.trimmed.replaceChildren(...(first === null && last === null ? ["all steps are kept"] : [`keeps steps ${first ?? 0} to ${last ?? this.steps - 1} `,
      el("button", { class: "btn ghost", type: "button", onclick: () => this.mark({ first: null, last: null }) }, "Keep all")]));
    this.outcome.replaceChildren(outcomePill(mark.success ?? this.facts.success));
    for (const plot of this.plots) plot.cut(first, last);
    showCuts(this.cuts, first, last, this.steps);
  }

  /** Show a step; `seek` also notes it in the address and pauses. */
  go(step) {
    if (!this.facts) { this.step = step; return; }
    this.step = Math.min(this.steps - 1, Math.max(0, step));
    // A pointer may move more often than the screen is drawn.
    this.showing ??= requestAnimationFrame(() => { this.showing = null; this.show(); });
  }

  seek(step) {
    if (this.playing) this.toggle();
    this.go(step);
    this.note();
  }

  note() {
    const name = encodeURIComponent(this.name);
    clearTimeout(this.linking);
    this.linking = setTimeout(() => {
      // Who has left already, while the page has not heard of it, must not be brought back.
      if (location.hash.split("/")[1] === name) history.replaceState(null, "", `#/${name}/${this.step}`);
    }, 150);
  }

  show() {
    const { step, steps, facts } = this, time = facts.times[step] - facts.times[0];
    this.read.textContent = `step ${step} of ${steps - 1} · ${time.toFixed(2)} s`;
    this.timeline.setAttribute("aria-valuenow", String(step));
    this.timeline.setAttribute("aria-valuetext", this.read.textContent);
    this.cursor.style.left = `${100 * (step + 0.5) / steps}%`;
    this.played.style.width = `${100 * (step + 0.5) / steps}%`;
    for (const plot of this.plots) plot.show(step);
    for (const [line, wish] of this.lines) line.show(wish(step));
  }

  toggle() {
    this.playing = !this.playing;
    if (this.playing && this.step === this.steps - 1) this.go(0);
    this.clock = this.step; // in steps: by the control rate, for simulators seldom run in time with the clock
    this.then = undefined;
    this.playButton.replaceChildren(icon(this.playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    if (!this.playing) this.note();
  }

  tick(now) {
    this.ticking = requestAnimationFrame((next) => this.tick(next));
    if (this.lines.length) this.rate.textContent = this.playing ? `${this.lines[0][0].rate} pictures/s` : "";
    if (!this.playing) return;
    this.clock += this.then === undefined ? 0 : this.speed * this.store.control_hz * (now - this.then) / 1000;
    this.then = now;
    const step = Math.min(this.steps - 1, Math.floor(this.clock));
    if (step !== this.step) this.go(step);
    if (step === this.steps - 1) this.toggle();
  }

  faster(by) {
    this.speed = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, SPEEDS.indexOf(this.speed) + by))];
    this.speedChoice.value = String(this.speed);
  }

  neighbour(by) {
    // A mark may have taken this episode out of what the filters show: its successor is then where it was.
    const order = this.store.order, at = order.indexOf(this.index), next = order[at >= 0 ? at + by : by > 0 ? this.place : this.place - 1];
    if (next === undefined) { toast(by > 0 ? "That was the last one." : "That was the first one."); return; }
    location.hash = `#/${encodeURIComponent(this.store.names[next])}/0`;
  }

  async share() {
    const link = `${location.origin}/#/${encodeURIComponent(this.name)}/${this.step}`;
    try { await navigator.clipboard.writeText(link); toast(`Copied ${link}`, "good"); } catch { toast(link); }
  }

  complain(error) {
    if (this.complained === error.message) return;
    this.complained = error.message;
    toast(error.message, "bad");
  }
}

/** What a camera's pictures are shown on; without a size until the first one. */
const screen = (label) => el("canvas", { role: "img", "aria-label": label, width: "0", height: "0" });
