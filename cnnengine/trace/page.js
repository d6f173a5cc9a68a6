// The page: the step at hand, what is looked at, the controls.

const CATEGORIES = [
  // rows of the timeline: name, kinds, colour
  ["global memory", ["global_load", "global_copy", "global_store"], "read"],
  ["to shared memory", ["shared_store", "shared_copy", "copy_landed", "stmatrix"], "write"],
  ["from shared memory", ["shared_load", "ldmatrix"], "load"],
  ["tensor cores", ["mma"], "product"],
];
const $ = (id) => document.getElementById(id);
const categoryOf = (name) => CATEGORIES.findIndex(([, kinds]) => kinds.includes(name));

class Page {
  constructor(trace) {
    this.trace = trace;
    this.machine = new Machine(trace);
    this.totals = totalsOf(trace);
    this.machine.go(trace.length - 1); // once to the end: what the sums become
    this.view = { showsValues: false, mine: new Set(trace.index) };
    this.view.all = Math.max(...this.machine.state.products);
    this.view.largest = Math.max(1e-30, ...this.machine.state.sums.map(Math.abs));
    this.machine.go(-1);
    this.pinned = this.hovered = null;
    this.frame = 0; // of the source that is shown: 0 the line itself, 1 where it was called
    this.pictures = {
      first: new ArrayPicture($("first"), this.machine, 0),
      second: new ArrayPicture($("second"), this.machine, 1),
      result: new ArrayPicture($("result"), this.machine, 2),
      threads: new ThreadPicture($("threads"), this.machine),
      sums: new SumPicture($("sums"), this.machine),
    };
    if (trace.sharedBytes) this.pictures.shared = new SharedPicture($("shared"), this.machine);
    else {
      $("shared-card").hidden = true;
      $("threads").closest("article").after($("sums").closest("article"));
    }
    this.#headings();
    this.#controls();
    this.#mouse();
    this.resize();
  }

  #headings() {
    const { trace } = this,
      s = trace.shape,
      list = (a) => a.join(" × ");
    $("title").textContent = `conv2d ${trace.verb.replace("_", " ")}: ${trace.algorithm}`;
    const threads = trace.threads.reduce((a, b) => a * b, 1);
    const parts = [
      trace.dtype,
      ...trace.arrays.map((a) => `${a.name} ${list(a.shape)}`),
      `stride ${s.stride_h}`,
      `padding ${s.pad_h}`,
      ...(s.dilation_h > 1 ? [`dilation ${s.dilation_h}`] : []),
      ...(s.groups > 1 ? [`${s.groups} groups`] : []),
      `block (${trace.block.join(", ")}) of ${list(trace.grid)}`,
      `${threads} threads`,
      ...(trace.sharedBytes ? [`${trace.sharedBytes.toLocaleString("en")} bytes of shared memory`] : []),
    ];
    $("subtitle").innerHTML = parts.map((p) => `<span>${escaped(p)}</span>`).join("");
    const letters = { x: "N, H, W, C", y: "N, P, Q, K", w: "K, R, S, C" };
    ["first", "second", "result"].forEach((id, i) => {
      const { name } = trace.arrays[i];
      $(`${id}-name`).innerHTML = `<i class="${id}"></i>${name} <small>(${letters[name.replace(/^d/, "")]})</small>`;
    });
    $("sums-note").textContent = `${trace.tile[0]} × ${trace.tile[1]} of the block`;
    $("command").textContent = trace.command;
    const chip = (colour, text) => `<span><i style="background:var(--${colour})"></i>${text}</span>`;
    $("legend").innerHTML = [
      ...CATEGORIES.map(([name, , colour]) => chip(colour, name)),
      ...(trace.sharedBytes
        ? [chip("fine", "a bank gives one word"), chip("warn", "two: a conflict"), chip("bad", "more")]
        : []),
      chip("mark", "what is pointed at, and its window"),
    ].join("");
  }

  #controls() {
    const { machine } = this,
      scrub = $("scrub");
    scrub.max = this.trace.length;
    const click = (id, action) => $(id).addEventListener("click", action);
    click("start", () => this.go(-1));
    click("back", () => this.go(machine.step - 1));
    click("on", () => this.go(machine.step + 1));
    click("barrier", () => this.toBarrier(1));
    click("play", () => this.play());
    click("theme", () => this.theme());
    click("keys", () => $("help").showModal());
    for (const name of ["progress", "values"])
      click(name, () => {
        this.view.showsValues = name === "values";
        $("progress").classList.toggle("on", name === "progress");
        $("values").classList.toggle("on", name === "values");
        this.draw();
      });
    scrub.addEventListener("input", () => this.go(Number(scrub.value) - 1));
    $("speed").addEventListener("change", () => this.timer && (this.play(), this.play()));
    addEventListener("keydown", (event) => this.#key(event));
    addEventListener("resize", () => this.resize());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.resize());
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || event.target.tagName === "SELECT") return;
    const far = event.shiftKey,
      { step } = this.machine;
    const actions = {
      " ": () => this.play(),
      t: () => this.theme(),
      Home: () => this.go(-1),
      End: () => this.go(this.trace.length - 1),
      ArrowRight: () => (far ? this.toBarrier(1) : this.go(step + 1)),
      ArrowLeft: () => (far ? this.toBarrier(-1) : this.go(step - 1)),
    };
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }

  #mouse() {
    for (const picture of Object.values(this.pictures)) {
      const thing = (event) => {
        const box = picture.canvas.getBoundingClientRect();
        return picture.hit(event.clientX - box.left, event.clientY - box.top);
      };
      picture.canvas.addEventListener("mousemove", (event) => this.hover(thing(event), event));
      picture.canvas.addEventListener("mouseleave", () => this.hover(null));
      picture.canvas.addEventListener("click", (event) => {
        const found = thing(event);
        this.pinned = JSON.stringify(found) === JSON.stringify(this.pinned) ? null : found;
        this.draw();
      });
    }
  }

  go(step) {
    this.machine.go(step);
    this.draw();
  }

  toBarrier(direction) {
    let step = this.machine.step + direction;
    while (step >= 0 && step < this.trace.length && this.trace.names[step] !== "block_barrier") step += direction;
    this.go(step);
  }

  play() {
    if (this.timer) {
      clearInterval(this.timer);
      this.timer = null;
    } else {
      if (this.machine.step >= this.trace.length - 1) this.machine.go(-1);
      const rate = Number($("speed").value),
        each = Math.ceil(rate / 30);
      this.timer = setInterval(
        () => {
          this.go(this.machine.step + each);
          if (this.machine.step >= this.trace.length - 1) this.play();
        },
        (1000 * each) / rate,
      );
    }
    $("play").textContent = this.timer ? "⏸ pause" : "▶ play";
  }

  theme() {
    const { dataset } = document.documentElement;
    const dark = dataset.theme ? dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    dataset.theme = dark ? "light" : "dark";
    this.resize();
  }

  resize() {
    readInks();
    for (const picture of Object.values(this.pictures)) picture.fit();
    this.#strip();
    this.draw();
  }

  hover(thing, event) {
    this.hovered = thing;
    this.draw();
    const tip = $("tip");
    tip.style.display = thing ? "block" : "none";
    if (!thing) return;
    tip.innerHTML = `<table>${this.wordsOf(thing)
      .map(([k, v]) => `<tr><th>${escaped(k)}</th><td>${escaped(v)}</td></tr>`)
      .join("")}</table>`;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 16, innerWidth - box.width - 8))}px`;
    const below = event.clientY + 18,
      above = event.clientY - box.height - 12;
    tip.style.top = `${Math.max(4, below + box.height > innerHeight ? above : below)}px`;
  }

  wordsOf(thing) {
    if ("thread" in thing) return threadWords(this.machine, thing.thread);
    if ("sum" in thing) return sumWords(this.machine, thing.sum);
    if ("byte" in thing) return wordWords(this.machine, thing.byte);
    return elementWords(this.machine, thing.array, thing.element);
  }

  draw() {
    const { trace, machine, view } = this,
      { step } = machine;
    Object.assign(view, touched(machine));
    view.resident = resident(machine);
    view.related = related(machine, this.hovered ?? this.pinned);
    Object.assign(view, windowOf(machine, view.related));
    if (view.window && !view.related.elements[2].size) {
      const { P, Q, K } = trace.shape,
        { n, p, q, k } = view.window;
      view.related.elements[2].add(((n * P + p) * Q + q) * K + k);
    }
    view.changed = step >= 0 ? machine.changed(step) : [];
    const category = step >= 0 ? categoryOf(trace.names[step]) : -1;
    view.colour = category >= 0 ? css(`--${CATEGORIES[category][2]}`) : ink.soft;
    for (const picture of Object.values(this.pictures)) picture.draw(view);
    this.#say(step, view.colour);
    this.#source(step);
    this.#scale();
    $("scrub").value = step + 1;
    $("count").textContent = `step ${(step + 1).toLocaleString("en")} of ${trace.length.toLocaleString("en")}`;
  }

  #say(step, colour) {
    const { trace } = this;
    const words = stepWords(trace, step, step >= 0 ? costOf(trace, step) : null);
    $("now").innerHTML =
      `<b style="border-color:${colour}">${escaped(words.title)}</b>` +
      words.facts.map((fact) => `<span>${escaped(fact)}</span>`).join("");
    const now = this.totals[step] ?? { requests: 0, sectors: 0, wavefronts: 0, conflicts: 0, products: 0 };
    const end = this.totals[trace.length - 1];
    const rows = [
      ["warp requests", "requests"],
      ["sectors of global memory", "sectors"],
      ["products", "products"],
    ];
    if (trace.sharedBytes)
      rows.splice(2, 0, ["wavefronts of shared memory", "wavefronts"], ["bank conflicts", "conflicts"]);
    $("totals").innerHTML = rows
      .map(([text, name]) => {
        const [a, b] = [now[name], end[name]].map((n) => Math.round(n).toLocaleString("en"));
        const part = end[name] ? (100 * now[name]) / end[name] : 0;
        const bar = `<span class="bar"><i style="width:${part}%"></i></span>`;
        return `<tr data-name="${name}"><th>${text}</th><td>${a}</td><td>${b}</td><td>${bar}</td></tr>`;
      })
      .join("");
  }

  // What the colours of the sums mean
  #scale() {
    const { view } = this,
      most = number(view.showsValues ? view.largest : view.all);
    const colours = (view.showsValues ? ["first", "line", "second"] : ["line", "result"]).map((c) => `var(--${c})`);
    const ends = view.showsValues ? [`−${most}`, most] : ["0", `${most} multiply-adds`];
    $("scale").innerHTML = `${ends[0]}<i style="background:linear-gradient(90deg,${colours.join()})"></i>${ends[1]}`;
  }

  #source(step) {
    const { trace } = this,
      place = step >= 0 ? trace.places[trace.steps.place[step]] : [];
    const depth = Math.min(this.frame, Math.max(0, place.length - 1)),
      shown = place[depth];
    $("frames").replaceChildren(
      ...place.map((line, i) => {
        const button = document.createElement("button");
        button.textContent = lineName(trace, line);
        button.className = i === depth ? "on" : "";
        button.title = i ? "where that is called" : "the line of this step";
        button.addEventListener("click", () => ((this.frame = i), this.draw()));
        return button;
      }),
    );
    const code = $("source");
    if (!shown) return code.replaceChildren();
    if (code.dataset.file !== String(shown[0])) {
      code.dataset.file = shown[0];
      code.innerHTML = trace.files[shown[0]].text
        .split("\n")
        .map((line, i) => `<span data-line="${i + 1}">${escaped(line) || " "}</span>`)
        .join("");
    }
    for (const old of code.querySelectorAll(".here, .around")) old.classList.remove("here", "around");
    place.forEach(([file, line], i) => {
      if (file === shown[0]) code.children[line - 1]?.classList.add(i === depth ? "here" : "around");
    });
    const here = code.querySelector(".here");
    if (here) code.scrollTop = here.offsetTop - code.offsetTop - code.clientHeight / 2 + 8;
  }

  #strip() {
    const { trace } = this,
      canvas = $("strip"),
      width = canvas.parentElement.clientWidth,
      scale = devicePixelRatio || 1;
    canvas.style.width = `${width}px`;
    ((canvas.width = width * scale), (canvas.height = 26 * scale));
    const pen = canvas.getContext("2d"),
      inset = 8,
      each = (width - 2 * inset) / trace.length;
    pen.scale(scale, scale);
    for (let step = 0; step < trace.length; step++) {
      const x = inset + step * each,
        category = categoryOf(trace.names[step]);
      if (trace.names[step] === "block_barrier") {
        pen.fillStyle = ink.soft;
        pen.fillRect(x, 0, 1, 26);
      } else if (category >= 0) {
        pen.fillStyle = css(`--${CATEGORIES[category][2]}`);
        pen.fillRect(x, 1 + category * 6.3, Math.max(1, each), 5);
      }
    }
  }
}

unpack($("trace").textContent).then((data) => {
  Object.assign(window, { page: new Page(new Trace(data)), costOf }); // for the console
  document.body.dataset.ready = "yes";
});
