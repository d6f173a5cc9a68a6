// What all pictures share. Each lays itself out for a width, draws the machine's state and says what lies under the
// mouse: a thing, which is {thread}, {array, element}, {byte} or {sum}.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const INKS = [
  "first",
  "second",
  "result",
  "ink",
  "paper",
  "soft",
  "line",
  "mark",
  "read",
  "write",
  "bad",
  "warn",
  "fine",
];
let ink = {};
function readInks() {
  ink = Object.fromEntries(INKS.map((name) => [name, css(`--${name}`)]));
  ink.arrays = [ink.first, ink.second, ink.result];
}

// Between two colours #rrggbb
function mix(a, b, part) {
  const parts = [1, 3, 5].map((i) => {
    const from = parseInt(a.slice(i, i + 2), 16),
      to = parseInt(b.slice(i, i + 2), 16);
    return Math.round(from + (to - from) * part);
  });
  return `rgb(${parts.join(",")})`;
}

// Of a bank that has to give so many words: fine, two, a few, many
function degreeInk(words) {
  return words <= 1 ? ink.fine : words === 2 ? ink.warn : words <= 4 ? mix(ink.warn, ink.bad, 0.5) : ink.bad;
}

class Picture {
  constructor(canvas, machine) {
    this.canvas = canvas;
    this.machine = machine;
    this.trace = machine.trace;
  }

  // Gives the canvas its size; height is the picture's own
  fit() {
    const around = getComputedStyle(this.canvas.parentElement);
    const padding = parseFloat(around.paddingLeft) + parseFloat(around.paddingRight);
    this.width = Math.floor(this.canvas.parentElement.clientWidth - padding);
    this.layout();
    const scale = window.devicePixelRatio || 1;
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.pen = this.canvas.getContext("2d");
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
    this.pen.font = "11px ui-sans-serif, system-ui, sans-serif";
    this.pen.textBaseline = "middle";
  }

  box(x, y, w, h, colour) {
    this.pen.fillStyle = colour;
    this.pen.fillRect(x, y, w, h);
  }

  frame(x, y, w, h, colour, thickness = 2, dash = []) {
    this.pen.strokeStyle = colour;
    this.pen.lineWidth = thickness;
    this.pen.setLineDash(dash);
    this.pen.strokeRect(x, y, w, h);
    this.pen.setLineDash([]);
  }

  say(text, x, y, colour = ink.soft, align = "left") {
    this.pen.fillStyle = colour;
    this.pen.textAlign = align;
    this.pen.fillText(text, x, y);
  }
}
