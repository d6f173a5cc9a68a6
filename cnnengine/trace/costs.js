// What a request costs, from its addresses: sectors of global memory, wavefronts of shared memory (docs/emulator.md).

const SECTOR = 32,
  BANKS = 32,
  BANK_BYTES = 4;

// Different sectors; arrays begin at multiples of 256 bytes
function sectorsOf(trace, step) {
  const sectors = new Set(),
    item = trace.steps.array[step] === ELSEWHERE ? 1 : trace.item;
  for (const [, first] of trace.reached(step)) {
    const byte = first * item;
    (sectors.add(Math.floor(byte / SECTOR)), sectors.add(Math.floor((byte + trace.bytes(step) - 1) / SECTOR)));
  }
  return sectors.size;
}

// Lanes that are served together, and for each bank how many different words it has to give them
function banksOf(trace, step) {
  const bytes = trace.bytes(step),
    together = bytes <= 4 ? 32 : bytes === 8 ? 16 : 8,
    parts = [];
  for (let first = 0; first < trace.warp; first += together) {
    const words = new Set();
    for (const [lane, byte] of trace.reached(step))
      if (lane >= first && lane < first + together)
        for (let w = Math.floor(byte / BANK_BYTES); w <= Math.floor((byte + bytes - 1) / BANK_BYTES); w++) words.add(w);
    if (!words.size) continue;
    const banks = new Array(BANKS).fill(0);
    for (const word of words) banks[word % BANKS]++;
    parts.push({ words, banks, wavefronts: Math.max(...banks) });
  }
  return parts;
}

function costOf(trace, step) {
  const name = trace.names[step],
    cost = { sectors: 0, wavefronts: 0, least: 0 };
  if (GLOBAL.has(name)) cost.sectors = sectorsOf(trace, step);
  if (SHARED.has(name) && name !== "copy_landed")
    for (const part of banksOf(trace, step)) ((cost.wavefronts += part.wavefronts), cost.least++);
  return cost;
}

// Sums over the steps before and at each
function totalsOf(trace) {
  const totals = [];
  const sum = { requests: 0, sectors: 0, wavefronts: 0, conflicts: 0, products: 0 };
  for (let step = 0; step < trace.length; step++) {
    const cost = costOf(trace, step);
    if (trace.names[step] !== "copy_landed") sum.requests += trace.steps.requests[step];
    sum.sectors += cost.sectors;
    sum.wavefronts += cost.wavefronts;
    sum.conflicts += cost.wavefronts - cost.least;
    if (trace.fragments[step]) sum.products += trace.fragments[step][2] * 128;
    if (trace.groups[step])
      for (const lane of trace.lanes[step]) {
        const thread = trace.steps.warp[step] * trace.warp + lane;
        sum.products += trace.rows[thread].length * trace.columns[thread].length;
      }
    totals.push({ ...sum });
  }
  return totals;
}
