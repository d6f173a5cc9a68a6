// What the block has done up to a step: shared memory, what was read, the sums. Goes on step by step; back by way of a
// copy that it made on its way.

const UNKNOWN = -1,
  SECOND_HALF = -3; // codes of shared memory: never written; of a float in halves
const EVERY = 256; // steps between copies

class Machine {
  constructor(trace) {
    this.trace = trace;
    this.unit = Math.min(4, trace.item); // bytes of an entry of `shared`
    this.copies = new Map();
    this.#clear();
    this.#keep();
  }

  #clear() {
    const { trace } = this,
      sums = trace.index.length;
    this.step = -1;
    this.state = {
      shared: new Int32Array(trace.sharedBytes / this.unit).fill(UNKNOWN),
      flying: new Uint8Array(trace.sharedBytes / this.unit), // a copy that nobody has waited for
      reads: trace.arrays.map((a) => new Uint16Array(a.values.length)), // times that an element was read
      stored: new Uint8Array(trace.arrays[2].values.length),
      sums: new Float32Array(sums),
      products: new Float64Array(sums), // that have reached a sum
    };
  }

  #keep() {
    const copy = {};
    for (const [name, value] of Object.entries(this.state))
      copy[name] = Array.isArray(value) ? value.map((v) => v.slice()) : value.slice();
    this.copies.set(this.step, copy);
  }

  // The state behind `step`, -1 for the start
  go(step) {
    step = Math.max(-1, Math.min(this.trace.length - 1, step));
    const from = Math.floor((step + 1) / EVERY) * EVERY - 1;
    if (step < this.step || (from > this.step && this.copies.has(from))) {
      let copy = from;
      while (!this.copies.has(copy)) copy -= EVERY;
      this.step = copy;
      this.state = {};
      for (const [name, value] of Object.entries(this.copies.get(copy)))
        this.state[name] = Array.isArray(value) ? value.map((v) => v.slice()) : value.slice();
    }
    while (this.step < step) {
      this.#make(++this.step);
      if ((this.step + 1) % EVERY === 0 && !this.copies.has(this.step)) this.#keep();
    }
  }

  #make(step) {
    const { trace, state } = this,
      name = trace.names[step];
    if (FILLED.has(name)) this.#fill(step);
    if (name === "shared_copy")
      for (const [, byte] of trace.reached(step))
        for (let i = 0; i < trace.bytes(step); i += this.unit) state.flying[(byte + i) / this.unit] = 1;
    const array = trace.steps.array[step];
    if (array !== ELSEWHERE && GLOBAL.has(name))
      for (const [, first] of trace.reached(step))
        for (let i = 0; i < trace.bytes(step) / trace.item; i++)
          if (name === "global_store") state.stored[first + i] = 1;
          else state.reads[array][first + i]++;
    if (trace.groups[step]) this.#multiply(step);
    if (trace.fragments[step]) this.#fragment(step);
  }

  #fill(step) {
    const { trace, state } = this,
      unit = trace.steps.unit[step],
      contents = trace.contents[step];
    let next = 0;
    for (const [, byte] of trace.reached(step))
      for (let i = 0; i < trace.bytes(step); i += unit) {
        const place = (byte + i) / this.unit;
        state.shared[place] = contents[next++];
        state.flying[place] = 0;
        if (unit > this.unit) state.shared[place + 1] = SECOND_HALF;
      }
  }

  // What a lane reads at a step, as numbers
  values(step, lane) {
    const { trace } = this,
      i = trace.lanes[step].indexOf(lane),
      at = trace.where[step][i],
      found = [];
    if (i < 0) return found;
    if (GLOBAL.has(trace.names[step])) {
      if (trace.steps.array[step] === ELSEWHERE) return found;
      const { values } = trace.arrays[trace.steps.array[step]];
      for (let j = 0; j < trace.bytes(step) / trace.item; j++) found.push(values[at + j]);
      return found;
    }
    return this.codes(step, lane).map((code) => trace.value(code));
  }

  // What shared memory holds where a lane reads or writes
  codes(step, lane) {
    const { trace } = this,
      i = trace.lanes[step].indexOf(lane),
      found = [];
    for (let byte = 0; i >= 0 && byte < trace.bytes(step); byte += this.unit) {
      const code = this.state.shared[(trace.where[step][i] + byte) / this.unit];
      if (code !== SECOND_HALF) found.push(code);
    }
    return found;
  }

  // [first factors' steps, second factors' steps]: each product is added in float32, as the kernel does
  #multiply(step) {
    const { trace, state } = this,
      [firsts, seconds] = trace.groups[step],
      columns = trace.tile[1];
    for (const lane of trace.lanes[step]) {
      const thread = trace.steps.warp[step] * trace.warp + lane;
      const a = firsts.flatMap((s) => this.values(s, lane)),
        b = seconds.flatMap((s) => this.values(s, lane));
      trace.rows[thread].forEach((row, i) =>
        trace.columns[thread].forEach((column, j) => {
          const sum = row * columns + column;
          state.sums[sum] = state.sums[sum] + Math.fround(a[i] * b[j]);
          state.products[sum]++;
        }),
      );
    }
  }

  #fragment(step) {
    const { trace, state } = this,
      [row, column, depth] = trace.fragments[step];
    const first = trace.fragmentNumber.get(step) * 128;
    for (let i = 0; i < 128; i++) {
      const sum = (row + Math.floor(i / 8)) * trace.tile[1] + column + (i % 8);
      state.sums[sum] = trace.fragmentValues[first + i];
      state.products[sum] += depth;
    }
  }

  // Sums that a step changes: of all its lanes, or of one
  changed(step, only = null) {
    const { trace } = this,
      columns = trace.tile[1],
      found = [];
    if (trace.fragments[step]) {
      const [row, column] = trace.fragments[step];
      for (let i = 0; i < 128; i++) {
        const lane = (Math.floor(i / 8) % 8) * 4 + Math.floor((i % 8) / 2);
        if (only === null || lane === only) found.push((row + Math.floor(i / 8)) * columns + column + (i % 8));
      }
    } else if (trace.groups[step]) {
      for (const lane of only === null ? trace.lanes[step] : [only])
        found.push(...this.kept(trace.steps.warp[step] * trace.warp + lane));
    }
    return found;
  }

  // Sums that a thread keeps
  kept(thread) {
    const { trace } = this;
    if (Object.keys(trace.fragments).length) {
      const warp = Math.floor(thread / trace.warp);
      const steps = Object.keys(trace.fragments)
        .map(Number)
        .filter((s) => trace.steps.warp[s] === warp);
      return [...new Set(steps.flatMap((s) => this.changed(s, thread % trace.warp)))];
    }
    return trace.rows[thread].flatMap((row) => trace.columns[thread].map((column) => row * trace.tile[1] + column));
  }

  // The thread that keeps a sum, or NOBODY
  keeper(sum) {
    if (!this.keepers) {
      this.keepers = new Int32Array(this.trace.index.length).fill(NOBODY);
      for (let t = 0; t < this.trace.warps * this.trace.warp; t++)
        if (this.trace.rows[t]) for (const s of this.kept(t)) this.keepers[s] = t;
    }
    return this.keepers[sum];
  }
}
