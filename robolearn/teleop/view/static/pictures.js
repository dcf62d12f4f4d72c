// Pictures of one step, asked for and sent over one WebSocket: no request, no cache and no address for each of them.

/** Latest wins: while `inFlight` wishes are under way only the newest other one is remembered, so that a slow link shows
 *  fewer pictures and never old ones. Answers come in the order of the wishes, all pictures of a step together. */
export class PictureLine {
  constructor(canvases, { onerror = () => {}, inFlight = 2 } = {}) {
    Object.assign(this, { canvases, onerror, inFlight, told: null, wanted: null, underWay: [], taken: 0, shown: 0, times: [], closed: false });
    this.connect();
  }

  connect() {
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/pictures`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => { this.wanted = this.told; this.next(); };
    this.socket.onmessage = ({ data }) => this.take(data);
    this.socket.onclose = () => {
      if (this.closed) return;
      this.onerror(new Error("the program does not answer; is it still running?"));
      this.underWay = [];
      setTimeout(() => this.closed || this.connect(), 1000);
    };
  }

  /** Wish for the pictures of a step; `wish` is what the server is told. */
  show(wish) {
    if (JSON.stringify(wish) === JSON.stringify(this.told)) return;
    this.told = this.wanted = wish;
    this.next();
  }

  next() {
    if (this.wanted === null || this.underWay.length >= this.inFlight || this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify(this.wanted));
    this.underWay.push(this.wanted);
    this.wanted = null;
  }

  async take(data) {
    const { step } = this.underWay.shift(), number = ++this.taken;
    this.next(); // decoding does not hold up the next wish
    if (typeof data === "string") { this.onerror(new Error(JSON.parse(data).error)); return; }
    const pictures = await Promise.all(split(data).map((jpeg) => createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }))));
    if (number < this.shown || this.closed) return;
    this.shown = number;
    pictures.forEach((picture, i) => put(this.canvases[i], picture, step));
    this.times.push(performance.now());
    if (this.times.length > 120) this.times.shift();
  }

  /** Pictures a second, of each camera. */
  get rate() {
    const now = performance.now();
    return this.times.filter((time) => now - time < 1000).length;
  }

  close() {
    this.closed = true;
    this.socket.close();
  }
}

/** The JPEGs of a message: each with its length in four bytes before it. */
function split(data) {
  const lengths = new DataView(data), parts = [];
  for (let at = 0; at < data.byteLength; at += 4 + lengths.getUint32(at)) parts.push(new Uint8Array(data, at + 4, lengths.getUint32(at)));
  return parts;
}

function put(canvas, picture, step) {
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    [canvas.width, canvas.height] = [picture.width, picture.height];
    canvas.parentNode.classList.toggle("small", picture.width < 160);
  }
  canvas.getContext("bitmaprenderer").transferFromImageBitmap(picture);
  canvas.dataset.step = step;
}
