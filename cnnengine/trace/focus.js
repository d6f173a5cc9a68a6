// What a step or a thing under the mouse has to do with: threads, elements, bytes of shared memory, sums.

// Elements that the step at hand moves, and bytes of shared memory
function touched(machine) {
  const { trace } = machine,
    { step } = machine,
    elements = [new Set(), new Set(), new Set()],
    bytes = new Set();
  if (step < 0) return { elements, bytes };
  const name = trace.names[step],
    array = trace.steps.array[step];
  const sources = (s, lane) => {
    for (const code of machine.codes(s, lane)) {
      const source = trace.source(code);
      if (source) elements[source[0]].add(source[1]);
    }
  };
  for (const [lane, at] of trace.reached(step)) {
    if (GLOBAL.has(name) && array !== ELSEWHERE)
      for (let i = 0; i < trace.bytes(step) / trace.item; i++) elements[array].add(at + i);
    if (!SHARED.has(name)) continue;
    for (let i = 0; i < trace.bytes(step); i += 4) bytes.add((at + i) & ~3);
    if (name !== "shared_copy") sources(step, lane);
  }
  if (name === "mma")
    for (const s of fragmentReads(machine, step)) for (const [lane] of trace.reached(s)) sources(s, lane);
  return { elements, bytes };
}

// The reads that brought a warp the fragments it multiplies at a step: the last ones before its products
function fragmentReads(machine, step) {
  const { trace } = machine,
    { warp } = trace.steps,
    found = [];
  for (let s = step - 1; s >= 0; s--) {
    if (warp[s] !== warp[step] && warp[s] !== ALL_WARPS) continue;
    const read = trace.names[s] === "ldmatrix" || trace.names[s] === "shared_load";
    if (read) found.push(s);
    else if (found.length || trace.names[s] !== "mma") break;
  }
  return found;
}

// What shared memory holds of each operand
function resident(machine) {
  const found = [new Set(), new Set()];
  for (const code of machine.state.shared) {
    const source = machine.trace.source(code);
    if (source) found[source[0]].add(source[1]);
  }
  return found;
}

// Everything that belongs to a thing, in all pictures
function related(machine, thing) {
  const { trace } = machine,
    { step } = machine;
  const found = { threads: new Set(), sums: new Set(), bytes: new Set(), elements: [new Set(), new Set(), new Set()] };
  if (!thing) return found;
  const ofLane = (lane, each) => {
    const i = step >= 0 ? trace.lanes[step].indexOf(lane) : -1;
    if (i >= 0) each(trace.where[step][i]);
  };
  if ("thread" in thing) {
    found.threads.add(thing.thread);
    for (const sum of machine.kept(thing.thread)) found.sums.add(sum);
    if (step >= 0 && trace.steps.warp[step] === Math.floor(thing.thread / 32))
      ofLane(thing.thread % 32, (at) => {
        const name = trace.names[step],
          array = trace.steps.array[step];
        if (GLOBAL.has(name) && array !== ELSEWHERE)
          for (let i = 0; i < trace.bytes(step) / trace.item; i++) found.elements[array].add(at + i);
        if (!SHARED.has(name)) return;
        for (let i = 0; i < trace.bytes(step); i += 4) found.bytes.add((at + i) & ~3);
        for (const code of machine.codes(step, thing.thread % 32)) {
          const source = trace.source(code);
          if (source) found.elements[source[0]].add(source[1]);
        }
      });
  }
  if ("sum" in thing) found.sums.add(thing.sum);
  if (thing.array === 2 && trace.index.includes(thing.element)) found.sums.add(trace.index.indexOf(thing.element));
  if ("sum" in thing || thing.array === 2)
    for (const sum of found.sums) if (machine.keeper(sum) !== NOBODY) found.threads.add(machine.keeper(sum));
  for (const sum of found.sums) if (trace.index[sum] !== NOBODY) found.elements[2].add(trace.index[sum]);
  if ("byte" in thing) {
    found.bytes.add(thing.byte);
    for (let i = 0; i < 4; i += machine.unit) {
      const source = trace.source(machine.state.shared[(thing.byte + i) / machine.unit]);
      if (source) found.elements[source[0]].add(source[1]);
    }
  }
  if ("element" in thing) {
    found.elements[thing.array].add(thing.element);
    machine.state.shared.forEach((code, place) => {
      const source = trace.source(code);
      if (source && source[0] === thing.array && source[1] === thing.element)
        found.bytes.add((place * machine.unit) & ~3);
    });
  }
  if (("byte" in thing || "element" in thing) && step >= 0 && trace.steps.warp[step] !== ALL_WARPS)
    for (const [lane, at] of trace.reached(step)) {
      const name = trace.names[step],
        size = trace.bytes(step);
      const there =
        "byte" in thing
          ? SHARED.has(name) && at < thing.byte + 4 && at + size > thing.byte
          : GLOBAL.has(name) &&
            trace.steps.array[step] === thing.array &&
            at <= thing.element &&
            at + size / trace.item > thing.element;
      if (there) found.threads.add(trace.steps.warp[step] * 32 + lane);
    }
  return found;
}

// The result that is followed: of the sum that is looked at, else of the first lane that is at work
function windowOf(machine, related) {
  const { trace } = machine,
    { step } = machine;
  if (trace.verb !== "forward") return { window: null, tap: null };
  let sums = [...related.sums];
  if (!sums.length && step >= 0 && trace.steps.warp[step] !== ALL_WARPS)
    sums = machine.kept(trace.steps.warp[step] * 32 + trace.lanes[step][0]);
  const sum = sums.find((s) => trace.index[s] !== NOBODY);
  if (sum === undefined) return { window: null, tap: null };
  const [n, p, q, k] = trace.axes(2, trace.index[sum]);
  const keeper = machine.keeper(sum),
    lane = keeper % 32,
    taps = new Set();
  if (step >= 0 && trace.groups[step] && trace.steps.warp[step] === Math.floor(keeper / 32))
    for (const s of trace.groups[step][1]) {
      const i = trace.lanes[s].indexOf(lane);
      if (i < 0) continue;
      const sources = GLOBAL.has(trace.names[s])
        ? [[1, trace.where[s][i]]]
        : machine.codes(s, lane).map((c) => trace.source(c));
      for (const source of sources) if (source) taps.add(trace.axes(1, source[1]).slice(1, 3).join());
    }
  return { window: { n, p, q, k }, tap: taps.size === 1 ? [...taps][0].split(",").map(Number) : null };
}
