// The pictures of threads, shared memory and sums.

// A row a warp
class ThreadPicture extends Picture {
  layout() {
    this.left = 30;
    this.size = Math.min(22, (this.width - this.left) / 32);
    this.top = 14;
    this.row = Math.min(this.size, 18);
    this.height = this.top + this.trace.warps * (this.row + 3);
  }

  hit(x, y) {
    const lane = Math.floor((x - this.left) / this.size),
      warp = Math.floor((y - this.top) / (this.row + 3));
    const all = this.trace.threads.reduce((a, b) => a * b, 1),
      thread = warp * 32 + lane;
    return lane >= 0 && lane < 32 && warp >= 0 && thread < all ? { thread } : null;
  }

  draw(view) {
    const { trace, machine } = this,
      { step } = machine,
      all = trace.threads.reduce((a, b) => a * b, 1);
    this.pen.clearRect(0, 0, this.width, this.height);
    for (const lane of [0, 8, 16, 24, 31])
      this.say(String(lane), this.left + (lane + 0.5) * this.size, 6, ink.soft, "center");
    for (let warp = 0; warp < trace.warps; warp++) {
      const y = this.top + warp * (this.row + 3),
        turn = step >= 0 && [warp, ALL_WARPS].includes(trace.steps.warp[step]);
      this.say(`w${warp}`, 2, y + this.row / 2, turn ? ink.ink : ink.soft);
      for (let lane = 0; lane < 32 && warp * 32 + lane < all; lane++) {
        const x = this.left + lane * this.size,
          active = turn && (trace.steps.lanes[step] >>> lane) & 1;
        this.box(x, y, this.size - 2, this.row, active ? view.colour : ink.line);
        if (turn && !active) this.frame(x + 1, y + 1, this.size - 4, this.row - 2, view.colour, 1);
        if (view.related.threads.has(warp * 32 + lane))
          this.frame(x - 1, y - 1, this.size, this.row + 2, ink.mark, 2.5);
      }
    }
  }
}

// Words of 4 bytes, a column a bank; rows that the block never touches are left out. Above, how many words each bank
// has to give for the request at hand.
class SharedPicture extends Picture {
  constructor(canvas, machine) {
    super(canvas, machine);
    const touched = new Set();
    for (let step = 0; step < this.trace.length; step++)
      if (SHARED.has(this.trace.names[step]))
        for (const [, byte] of this.trace.reached(step))
          (touched.add(byte >> 7), touched.add((byte + this.trace.bytes(step) - 1) >> 7));
    this.rows = [...touched].sort((a, b) => a - b);
    this.place = new Map(this.rows.map((row, i) => [row, i]));
  }

  layout() {
    this.left = 40;
    this.top = 46;
    this.size = (this.width - this.left) / 32;
    this.row = Math.max(4, Math.min(13, Math.floor(560 / Math.max(1, this.rows.length))));
    this.height = this.top + this.rows.length * this.row + 2;
  }

  word(word) {
    const row = this.place.get(word >> 5);
    return [
      this.left + (word % 32) * this.size,
      this.top + row * this.row,
      this.size - 1,
      this.row - (this.row > 5 ? 1 : 0.3),
    ];
  }

  hit(x, y) {
    const bank = Math.floor((x - this.left) / this.size),
      row = Math.floor((y - this.top) / this.row);
    if (bank < 0 || bank >= 32 || row < 0 || row >= this.rows.length) return null;
    return { byte: (this.rows[row] * 32 + bank) * 4 };
  }

  draw(view) {
    const { trace, pen } = this,
      state = this.machine.state,
      unit = this.machine.unit;
    pen.clearRect(0, 0, this.width, this.height);
    this.#labels();
    for (const row of this.rows)
      for (let word = row * 32; word < row * 32 + 32 && word * 4 < trace.sharedBytes; word++) {
        const [x, y, w, h] = this.word(word),
          parts = 4 / unit;
        for (let i = 0; i < parts; i++) {
          const place = word * parts + i,
            code = state.shared[place];
          const whole = code !== SECOND_HALF && state.shared[place + 1] === SECOND_HALF && parts === 2 && i === 0;
          if (code === SECOND_HALF) continue;
          const colour = state.flying[place] ? mix(ink.line, ink.write, 0.45) : this.#inkOf(code);
          this.box(x + (i * w) / parts, y, whole ? w : w / parts - (parts > 1 ? 0.5 : 0), h, colour);
        }
      }
    this.#request(view);
    for (const byte of view.related.bytes) {
      if (!this.place.has(byte >> 7)) continue;
      const [x, y, w, h] = this.word(byte >> 2);
      this.frame(x - 1, y - 1, w + 2, h + 2, ink.mark, 2);
    }
  }

  #inkOf(code) {
    if (code === UNKNOWN) return ink.line;
    if (code === ZERO) return mix(ink.line, ink.soft, 0.35);
    const source = this.trace.source(code);
    return mix(ink.line, source ? ink.arrays[source[0]] : ink.result, 0.55);
  }

  #labels() {
    let last = -100;
    for (const region of this.trace.regions) {
      const each = (region.end - region.begin) / region.dims[0];
      for (let i = 0; i < region.dims[0]; i++) {
        const row = this.place.get(Math.floor((region.begin + i * each) / 128));
        if (row === undefined) continue;
        const y = this.top + row * this.row + Math.max(6, this.row / 2);
        if (y < last + 11) continue;
        last = y;
        this.say(`${region.name}[${i}]`, 2, y, ink.soft);
      }
    }
  }

  #request(view) {
    const { trace, machine } = this,
      { step } = machine;
    const loads = new Array(BANKS).fill(0);
    if (step >= 0 && SHARED.has(trace.names[step]) && trace.names[step] !== "copy_landed") {
      for (const part of banksOf(trace, step)) {
        part.banks.forEach((words, bank) => (loads[bank] = Math.max(loads[bank], words)));
        for (const word of part.words) {
          const [x, y, w, h] = this.word(word);
          this.box(x, y, w, h, degreeInk(part.banks[word % BANKS]));
        }
      }
    } else if (view.bytes.size) {
      for (const byte of view.bytes) this.frame(...this.word(byte >> 2), ink.ink, 1);
    }
    const most = Math.max(1, ...loads);
    for (let bank = 0; bank < BANKS; bank++) {
      const x = this.left + bank * this.size,
        high = loads[bank] ? Math.max(4, (22 * loads[bank]) / most) : 1;
      this.box(x, 38 - high, this.size - 1, high, loads[bank] ? degreeInk(loads[bank]) : ink.line);
      if (loads[bank] > 1) this.say(String(loads[bank]), x + this.size / 2, 31 - high, ink.ink, "center");
    }
    this.say("words", 2, 22, ink.soft);
    this.say("a bank", 2, 34, ink.soft);
  }
}

// The tile: rows by columns
class SumPicture extends Picture {
  layout() {
    const [rows, columns] = this.trace.tile;
    this.size = Math.max(2, Math.min(30, Math.floor(Math.min((this.width - 2) / columns, 330 / rows))));
    this.height = rows * this.size + 2;
  }

  cell(sum) {
    const columns = this.trace.tile[1],
      gap = this.size >= 5 ? 1 : 0;
    return [
      1 + (sum % columns) * this.size,
      1 + Math.floor(sum / columns) * this.size,
      this.size - gap,
      this.size - gap,
    ];
  }

  hit(x, y) {
    const [rows, columns] = this.trace.tile,
      row = Math.floor((y - 1) / this.size),
      column = Math.floor((x - 1) / this.size);
    return row >= 0 && row < rows && column >= 0 && column < columns ? { sum: row * columns + column } : null;
  }

  draw(view) {
    const { trace, pen } = this,
      state = this.machine.state;
    pen.clearRect(0, 0, this.width, this.height);
    trace.index.forEach((element, sum) => {
      const [x, y, w, h] = this.cell(sum);
      const full = view.all ? state.products[sum] / view.all : 0,
        value = state.sums[sum] / view.largest;
      let colour = mix(ink.line, ink.result, full);
      if (view.showsValues) colour = mix(ink.line, value < 0 ? ink.first : ink.second, Math.min(1, Math.abs(value)));
      if (element === NOBODY) {
        pen.globalAlpha = 0.35;
        this.box(x, y, w, h, state.products[sum] ? mix(ink.line, ink.soft, full * 0.6) : ink.line);
        pen.globalAlpha = 1;
      } else {
        this.box(x, y, w, h, colour);
      }
      if (element !== NOBODY && state.stored[element] && this.size >= 6)
        this.box(x + w / 2 - 1, y + h / 2 - 1, 2, 2, ink.paper);
    });
    for (const sum of view.changed) {
      const [x, y, w, h] = this.cell(sum);
      pen.globalAlpha = trace.index[sum] === NOBODY ? 0.25 : 1;
      this.frame(x + 0.5, y + 0.5, w - 1, h - 1, ink.ink, 1);
    }
    pen.globalAlpha = 1;
    for (const sum of view.related.sums) {
      const [x, y, w, h] = this.cell(sum);
      this.frame(x - 1, y - 1, w + 2, h + 2, ink.mark, 2);
    }
  }
}
