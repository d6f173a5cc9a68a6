// The trace, unpacked: `trace.steps.<column>[step]`, and for each step its lanes and where they read or write.

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function floats(text) {
  return new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

// Each number is written as what it is more than the one before
function summed(differences) {
  const values = new Array(differences.length);
  let value = 0;
  for (let i = 0; i < values.length; i++) values[i] = value += differences[i];
  return values;
}

const ALL_WARPS = -1,
  ELSEWHERE = -1,
  NOBODY = -1;
const ZERO = 0,
  OTHER = -2; // codes of what a word holds, see cnnengine/trace/steps.py
const GLOBAL = new Set(["global_load", "global_store", "global_copy"]);
const SHARED = new Set(["shared_load", "shared_store", "shared_copy", "ldmatrix", "stmatrix", "copy_landed"]);
const FILLED = new Set(["shared_store", "copy_landed"]);

class Trace {
  constructor(data) {
    Object.assign(this, data);
    for (const array of this.arrays) array.values = floats(array.values);
    this.numbers = floats(this.numbers);
    this.fragmentValues = floats(this.fragmentValues);
    this.index = summed(this.index);
    this.length = this.steps.kind.length;
    this.names = this.steps.kind.map((kind) => this.kinds[kind]);
    this.warps = Math.ceil(this.threads.reduce((a, b) => a * b, 1) / this.warp);
    this.operands = this.arrays[0].values.length + this.arrays[1].values.length;
    this.fragmentNumber = new Map(
      Object.keys(this.fragments)
        .map(Number)
        .sort((a, b) => a - b)
        .map((s, i) => [s, i]),
    );
    this.#spread(summed(this.at), summed(this.held));
  }

  // Where each step's lanes begin in the long columns
  #spread(at, held) {
    ((this.lanes = []), (this.where = []), (this.contents = []));
    let read = 0,
      filled = 0;
    for (let step = 0; step < this.length; step++) {
      const lanes = [];
      for (let lane = 0; lane < this.warp; lane++) if ((this.steps.lanes[step] >>> lane) & 1) lanes.push(lane);
      this.lanes.push(lanes);
      const name = this.names[step],
        memory = GLOBAL.has(name) || SHARED.has(name);
      this.where.push(memory ? at.slice(read, (read += lanes.length)) : []);
      const words = FILLED.has(name) ? (lanes.length * this.steps.amount[step]) / this.steps.unit[step] : 0;
      this.contents.push(held.slice(filled, (filled += words)));
    }
  }

  // Bytes that a lane moves; ldmatrix takes rows of 16 bytes from as many lanes as it has rows
  bytes(step) {
    return this.names[step] === "ldmatrix" || this.names[step] === "stmatrix" ? 16 : this.steps.amount[step];
  }

  // Lanes whose addresses count, with what they are: [lane, address]
  reached(step) {
    const matrix = this.names[step] === "ldmatrix" || this.names[step] === "stmatrix";
    const rows = matrix ? (this.steps.amount[step] / 4) * 8 : this.warp;
    return this.lanes[step].map((lane, i) => [lane, this.where[step][i]]).filter(([lane]) => lane < rows);
  }

  // The number that a code stands for
  value(code) {
    if (code <= ZERO) return 0;
    const first = this.arrays[0].values.length;
    if (code <= first) return this.arrays[0].values[code - 1];
    if (code <= this.operands) return this.arrays[1].values[code - 1 - first];
    return this.numbers[code - 1 - this.operands];
  }

  // [array, element] that a code stands for, or null
  source(code) {
    const first = this.arrays[0].values.length;
    if (code <= ZERO || code > this.operands) return null;
    return code <= first ? [0, code - 1] : [1, code - 1 - first];
  }

  // Indices of an element along the axes of its array
  axes(array, element) {
    const shape = this.arrays[array].shape,
      index = [];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index.unshift(element % shape[axis]);
      element = Math.floor(element / shape[axis]);
    }
    return index;
  }

  element(array, element) {
    return array === ELSEWHERE ? "elsewhere" : `${this.arrays[array].name}[${this.axes(array, element).join(", ")}]`;
  }
}
