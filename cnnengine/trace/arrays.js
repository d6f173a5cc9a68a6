// The picture of an array of four axes: a panel for each index of the first, in it a pixel for each of the next two, in
// that a cell for each of the last. Images have the padding around them.
class ArrayPicture extends Picture {
  constructor(canvas, machine, array) {
    super(canvas, machine);
    this.array = array;
    const { shape, name } = this.trace.arrays[array],
      s = this.trace.shape;
    [this.panels, this.lines, this.pixels, this.cells] = shape;
    this.across = Math.ceil(Math.sqrt(this.cells));
    for (let n = this.across; n <= 2 * this.across; n++)
      // without an empty cell, where that is not too wide
      if (this.cells % n === 0) {
        this.across = n;
        break;
      }
    this.down = Math.ceil(this.cells / this.across);
    const padded = array === 0 && name === "x" && this.trace.verb === "forward";
    const below = (out, stride, dilation, taps, before, size) =>
      Math.max(0, (out - 1) * stride + (taps - 1) * dilation + 1 - before - size);
    this.ring = !padded
      ? [0, 0, 0, 0]
      : [
          s.pad_h,
          s.pad_w,
          below(s.P, s.stride_h, s.dilation_h, s.R, s.pad_h, s.H),
          below(s.Q, s.stride_w, s.dilation_w, s.S, s.pad_w, s.W),
        ];
  }

  layout() {
    const [top, left, bottom, right] = this.ring,
      most = 300;
    const lines = this.lines + top + bottom,
      pixels = this.pixels + left + right;
    for (this.size = 44; this.size > 2; this.size--) {
      this.gap = Math.max(4, Math.min(12, this.size / 2));
      this.columns = Math.max(
        1,
        Math.min(this.panels, Math.floor((this.width + this.gap) / (pixels * this.size + this.gap))),
      );
      this.height = Math.ceil(this.panels / this.columns) * (lines * this.size + this.gap) - this.gap + 2;
      if (pixels * this.size <= this.width - 2 && this.height <= most) break;
    }
    this.step = [pixels * this.size + this.gap, lines * this.size + this.gap];
  }

  // Top left of a pixel, which may lie in the padding
  pixel(panel, line, pixel) {
    const x = (panel % this.columns) * this.step[0] + (pixel + this.ring[1]) * this.size;
    return [x + 1, Math.floor(panel / this.columns) * this.step[1] + (line + this.ring[0]) * this.size + 1];
  }

  cell(element) {
    const [panel, line, pixel, cell] = this.trace.axes(this.array, element),
      [x, y] = this.pixel(panel, line, pixel);
    const gap = this.size >= 24 ? 3 : this.size >= 8 ? 1 : 0,
      w = (this.size - gap) / this.across,
      h = (this.size - gap) / this.down;
    return [x + (cell % this.across) * w, y + Math.floor(cell / this.across) * h, w - (w > 5), h - (h > 5)];
  }

  hit(x, y) {
    const column = Math.floor(x / this.step[0]),
      row = Math.floor(y / this.step[1]),
      panel = row * this.columns + column;
    const pixel = Math.floor((x - 1 - column * this.step[0]) / this.size) - this.ring[1];
    const line = Math.floor((y - 1 - row * this.step[1]) / this.size) - this.ring[0];
    if (column >= this.columns || panel >= this.panels) return null;
    if (pixel < 0 || line < 0 || pixel >= this.pixels || line >= this.lines) return null;
    const [left, top] = this.pixel(panel, line, pixel),
      part = (v, n) => Math.min(n - 1, Math.floor((v / this.size) * n));
    const cell = part(y - top, this.down) * this.across + part(x - left, this.across);
    if (cell >= this.cells) return null;
    return { array: this.array, element: ((panel * this.lines + line) * this.pixels + pixel) * this.cells + cell };
  }

  draw(view) {
    const { array, trace, pen } = this,
      state = this.machine.state,
      hue = ink.arrays[array];
    pen.clearRect(0, 0, this.width, this.height);
    if (this.ring.some((n) => n)) this.#padding();
    const now = view.elements[array];
    const { length } = trace.arrays[array].values;
    for (let e = 0; e < length; e++) {
      let colour = ink.line;
      if (array === 2) colour = state.stored[e] ? hue : view.mine.has(e) ? mix(ink.line, hue, 0.22) : ink.line;
      else if (now.has(e)) colour = hue;
      else if (view.resident[array].has(e)) colour = mix(ink.line, hue, 0.5);
      else if (state.reads[array][e]) colour = mix(ink.line, hue, 0.22);
      const [x, y, w, h] = this.cell(e);
      this.box(x, y, w, h, colour);
      if (now.has(e)) {
        if (array === 2) this.frame(x, y, w, h, ink.ink, 1.5);
        else this.box(x + w * 0.3, y + h * 0.3, w * 0.4, h * 0.4, ink.paper);
      }
    }
    this.#window(view);
    for (const e of view.related.elements[array]) {
      const [x, y, w, h] = this.cell(e);
      this.frame(x - 1, y - 1, w + 2, h + 2, ink.mark, 2);
    }
  }

  #padding() {
    const [top, left, bottom, right] = this.ring;
    for (let panel = 0; panel < this.panels; panel++) {
      for (let line = -top; line < this.lines + bottom; line++)
        for (let pixel = -left; pixel < this.pixels + right; pixel++)
          if (line < 0 || pixel < 0 || line >= this.lines || pixel >= this.pixels) {
            const [x, y] = this.pixel(panel, line, pixel);
            this.frame(x + 1.5, y + 1.5, this.size - 4, this.size - 4, ink.line, 1, [2, 2]);
          }
    }
  }

  // What the sum in focus is of: a window of the input, a filter; and the tap that is its turn
  #window(view) {
    const { window: of, tap } = view,
      s = this.trace.shape,
      thin = this.size > 10 ? 2.5 : 1.5;
    if (!of || this.trace.verb !== "forward" || this.array === 2) return;
    for (let r = 0; r < s.R; r++)
      for (let c = 0; c < s.S; c++) {
        const at =
          this.array === 0
            ? [of.n, of.p * s.stride_h - s.pad_h + r * s.dilation_h, of.q * s.stride_w - s.pad_w + c * s.dilation_w]
            : [of.k, r, c];
        const [x, y] = this.pixel(...at),
          turn = tap && tap[0] === r && tap[1] === c;
        const apart = this.array === 0 && Math.max(s.dilation_h, s.dilation_w) > 1;
        if (turn) this.frame(x, y, this.size - 1, this.size - 1, ink.mark, thin);
        else if (apart) this.frame(x, y, this.size - 1, this.size - 1, ink.mark, 1);
        if (r === 0 && c === 0 && !apart)
          this.frame(x - 0.5, y - 0.5, s.S * this.size, s.R * this.size, ink.mark, thin);
      }
  }
}
