// What is said of things: a step, a thread, an element, a word, a sum.

const PHRASES = {
  global_load: "reads global memory",
  global_store: "writes global memory",
  global_copy: "copies from global memory (cp.async)",
  shared_load: "reads shared memory",
  shared_store: "writes shared memory",
  shared_copy: "sends a copy to shared memory (cp.async)",
  copy_landed: "has waited for copies: they are in shared memory",
  ldmatrix: "loads matrices from shared memory (ldmatrix)",
  stmatrix: "stores matrices to shared memory (stmatrix)",
  mma: "multiplies on tensor cores (mma)",
  block_barrier: "waits for the whole block (__syncthreads)",
  warp_barrier: "waits for its lanes (__syncwarp)",
  warp_exchange: "exchanges values between lanes",
};
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const number = (value) => String(Number(value.toPrecision(6)));
const escaped = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
const lineName = (trace, [file, line]) => `${trace.files[file].name.split("/").slice(-2).join("/")}:${line}`;

function stepWords(trace, step, cost) {
  if (step < 0) return { title: "Nothing has happened yet", facts: ["press space, or → for a step"] };
  const name = trace.names[step],
    { warp, amount } = trace.steps,
    facts = [];
  const who = warp[step] === ALL_WARPS ? "The block" : `Warp ${warp[step]}`;
  const title = warp[step] === ALL_WARPS ? "The block meets (__syncthreads)" : `${who} ${PHRASES[name] ?? name}`;
  if (GLOBAL.has(name) || SHARED.has(name))
    facts.push(`${plural(trace.lanes[step].length, "lane")} × ${plural(trace.bytes(step), "byte")}`);
  if (GLOBAL.has(name) && trace.steps.array[step] !== ELSEWHERE) {
    facts.unshift(trace.arrays[trace.steps.array[step]].name);
    facts.push(`${plural(cost.sectors, "sector")}, ${trace.steps.ideal[step]} would do`);
  }
  if (cost.least) {
    const conflicts = cost.wavefronts - cost.least;
    facts.push(
      plural(cost.wavefronts, "wavefront"),
      conflicts ? plural(conflicts, "bank conflict") : "no bank conflict",
    );
  }
  if (name === "mma") facts.push(`16 × 8 sums, ${amount[step] * trace.warp} multiply-adds`);
  if (trace.groups[step]) {
    const thread = warp[step] * trace.warp + trace.lanes[step][0];
    facts.push(`then each lane adds ${plural(trace.rows[thread].length * trace.columns[thread].length, "product")}`);
  }
  return { title, facts };
}

// Where a byte of shared memory lies in the arrays there
function sharedName(trace, byte) {
  const region = trace.regions.find((r) => byte >= r.begin && byte < r.end);
  if (!region) return `byte ${byte}`;
  let element = Math.floor((byte - region.begin) / region.item);
  const index = [];
  for (let i = region.dims.length - 1; i >= 0; i--) {
    index.unshift(`${region.axes[i]} ${element % region.dims[i]}`);
    element = Math.floor(element / region.dims[i]);
  }
  return `${region.name}: ${index.join(", ")}`;
}

function codeWords(trace, code) {
  if (code === UNKNOWN) return "nothing was written yet";
  if (code === OTHER) return "where the block's tile lies";
  if (code === ZERO) return "0 (padding, or beyond the end)";
  const source = trace.source(code);
  return `${number(trace.value(code))}${source ? ` = ${trace.element(...source)}` : ""}`;
}

function threadWords(machine, thread) {
  const { trace, step } = machine,
    lane = thread % trace.warp,
    warp = Math.floor(thread / trace.warp);
  const rows = [["thread", `${thread} (warp ${warp}, lane ${lane})`]];
  const i = step >= 0 && trace.steps.warp[step] === warp ? trace.lanes[step].indexOf(lane) : -1;
  if (i >= 0) {
    const name = trace.names[step],
      at = trace.where[step][i];
    if (GLOBAL.has(name)) {
      const array = trace.steps.array[step];
      rows.push([
        "global byte",
        array === ELSEWHERE ? "elsewhere" : `${trace.arrays[array].name} + ${at * trace.item}`,
      ]);
      rows.push(["element", trace.element(array, at)]);
    } else if (SHARED.has(name)) {
      rows.push(
        ["shared byte", `${at} (bank ${Math.floor(at / BANK_BYTES) % BANKS})`],
        ["place", sharedName(trace, at)],
      );
    }
    const shown = name === "shared_copy" ? [] : machine.values(step, lane);
    if (name === "global_store") rows.push(["writes", shown.map(number).join(", ")]);
    else if (shown.length) rows.push([FILLED.has(name) ? "writes" : "reads", shown.map(number).join(", ")]);
  } else if (step >= 0 && trace.steps.warp[step] === warp) {
    rows.push(["at this step", "does not take part"]);
  }
  const kept = machine.kept(thread).filter((s) => trace.index[s] !== NOBODY);
  rows.push(["keeps", plural(kept.length, "sum")]);
  return rows;
}

function sumWords(machine, sum) {
  const { trace, state } = machine,
    columns = trace.tile[1];
  const rows = [["sum", `row ${Math.floor(sum / columns)}, column ${sum % columns} of the tile`]];
  const thread = machine.keeper(sum);
  if (thread !== NOBODY) rows.push(["kept by", `thread ${thread}`]);
  if (trace.index[sum] === NOBODY) rows.push(["becomes", "nothing: outside of the result"]);
  else rows.push(["becomes", trace.element(2, trace.index[sum])]);
  rows.push(["value", number(state.sums[sum])], ["products", plural(Math.round(state.products[sum]), "multiply-add")]);
  return rows;
}

function elementWords(machine, array, element) {
  const { trace, state } = machine;
  const rows = [["element", trace.element(array, element)]];
  if (array < 2) {
    rows.push(
      ["value", number(trace.arrays[array].values[element])],
      ["read", plural(state.reads[array][element], "time")],
    );
  } else if (state.stored[element]) {
    rows.push(["value", number(trace.arrays[2].values[element])], ["stored", "yes"]);
  } else {
    rows.push(["stored", trace.index.includes(element) ? "not yet" : "by another block"]);
  }
  return rows;
}

function wordWords(machine, byte) {
  const { trace, state, unit } = machine,
    rows = [["shared byte", `${byte} (bank ${Math.floor(byte / 4) % BANKS})`]];
  rows.push(["place", sharedName(trace, byte)]);
  for (let i = 0; i < 4; i += unit) {
    const code = state.shared[(byte + i) / unit];
    if (code !== SECOND_HALF)
      rows.push(["holds", codeWords(trace, code) + (state.flying[(byte + i) / unit] ? "; a copy is on its way" : "")]);
  }
  return rows;
}
