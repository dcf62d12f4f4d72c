// Everything a person can drive with in a browser, as one state: keys, gamepad, touch sticks, mouse, focus.

const MODIFIERS = /^(Control|Meta|Alt|Shift)/;
const CONTROLS = "button, a, summary, select, [role=button]";
const FIELDS = "input, textarea, select, [contenteditable]";
const MOUSE_FULL_PX = 110;
const WHEEL_MS = 120;

export class Inputs {
  /** `used` are the keys that the profile knows; `changed` is called at every change. */
  constructor(used, changed) {
    this.used = used;
    this.changed = changed;
    this.held = new Set();
    this.focused = document.hasFocus() && !document.hidden;
    this.touch = {};
    this.mouse = null;
    this.wheel = 0;
    this.pad = "";
    this.padName = "";
    addEventListener("keydown", (event) => this.down(event));
    addEventListener("keyup", (event) => { if (this.held.delete(event.code)) this.changed(); });
    addEventListener("blur", () => this.focus(false));
    addEventListener("focus", () => this.focus(true));
    addEventListener("pointerdown", () => this.focus(true));
    document.addEventListener("visibilitychange", () => this.focus(!document.hidden && document.hasFocus()));
    // Keys held when a field or a question takes the keyboard would never be let go.
    document.addEventListener("focusin", (event) => { if (event.target.matches?.(`${FIELDS}, dialog *`)) this.clear(); });
    const poll = () => { this.readPad(); requestAnimationFrame(poll); };
    requestAnimationFrame(poll);
  }

  focus(on) {
    if (on === this.focused) return;
    this.focused = on;
    if (!on) this.clear();
    this.changed();
  }

  clear() {
    this.held.clear();
    this.touch = {};
    this.mouse = null;
    this.wheel = 0;
    this.changed();
  }

  down(event) {
    this.focus(true);
    const target = event.target instanceof Element ? event.target : document.body;
    if (document.querySelector("dialog[open]") || target.matches(FIELDS)) return;
    if ((event.ctrlKey || event.metaKey || event.altKey) && !MODIFIERS.test(event.code)) return;
    // A focused button is pressed with Space and Enter as everywhere else; Tab goes on from it.
    if (["Space", "Enter"].includes(event.code) && target.matches(CONTROLS)) return;
    if (!this.used.has(event.code)) return;
    event.preventDefault();
    if (event.repeat || this.held.has(event.code)) return;
    this.held.add(event.code);
    this.changed();
  }

  readPad() {
    const pad = [...(navigator.getGamepads?.() ?? [])].find((one) => one?.connected && one.buttons.length);
    this.padName = pad ? pad.id : "";
    const state = pad ? {
      axes: [...pad.axes].slice(0, 4).map((value) => +value.toFixed(3)),
      buttons: [...pad.buttons].slice(0, 17).map((button) => +button.value.toFixed(2)),
    } : null;
    const text = state ? JSON.stringify(state) : "";
    if (text === this.pad) return;
    this.pad = text;
    this.changed();
  }

  /** Make an element a stick: -1 .. 1, to the right and down. */
  stick(element, side) {
    const move = (event) => {
      const box = element.getBoundingClientRect(), full = box.width * 0.36;
      let x = (event.clientX - box.left - box.width / 2) / full, y = (event.clientY - box.top - box.height / 2) / full;
      const far = Math.max(1, Math.hypot(x, y));
      [x, y] = [x / far, y / far];
      this.touch[side] = [+x.toFixed(3), +y.toFixed(3)];
      element.style.setProperty("--x", x);
      element.style.setProperty("--y", y);
      this.changed();
    };
    const end = () => {
      delete this.touch[side];
      element.style.setProperty("--x", 0);
      element.style.setProperty("--y", 0);
      this.changed();
    };
    element.addEventListener("pointerdown", (event) => { event.preventDefault(); element.setPointerCapture(event.pointerId); move(event); });
    element.addEventListener("pointermove", (event) => { if (element.hasPointerCapture(event.pointerId)) move(event); });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(name, end);
  }

  /** Let the mouse drive by dragging on an element: how far from where it was pressed is a stick's travel. */
  drag(element) {
    let start = null;
    const tell = (event) => {
      const cut = (value) => +Math.max(-1, Math.min(1, value / MOUSE_FULL_PX)).toFixed(3);
      const names = ["mouse_left", "mouse_right", "mouse_middle"];
      const buttons = names.filter((_, bit) => event.buttons & (1 << bit));
      this.mouse = start ? { x: cut(event.clientX - start[0]), y: cut(event.clientY - start[1]), buttons } : null;
      this.changed();
    };
    element.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse") return;
      event.preventDefault();
      document.activeElement?.blur?.();
      element.setPointerCapture(event.pointerId);
      start = [event.clientX, event.clientY];
      tell(event);
    });
    element.addEventListener("pointermove", (event) => { if (start) tell(event); });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      element.addEventListener(name, (event) => { if (name !== "pointerup" || !event.buttons) start = null; tell(event); });
    }
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.wheel = Math.sign(event.deltaY);
      clearTimeout(this.wheelTimer);
      this.wheelTimer = setTimeout(() => { this.wheel = 0; this.changed(); }, WHEEL_MS);
      this.changed();
    }, { passive: false });
  }

  /** The whole state, as robolearn/teleop/devices/browser.py takes it. */
  state() {
    const state = { keys: [...this.held].slice(0, 32), focused: this.focused };
    if (this.pad) state.gamepad = JSON.parse(this.pad);
    if (Object.keys(this.touch).length) state.touch = this.touch;
    if (this.mouse || this.wheel) state.mouse = { ...(this.mouse ?? {}), wheel: this.wheel };
    return state;
  }
}
