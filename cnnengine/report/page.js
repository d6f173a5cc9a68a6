"use strict";
// Filters, sorting, hover and the switch of colours. Without it everything is still there to read.

const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const named = (id) => document.getElementById(id);

// colours: as the system, until somebody chooses
const stored = { get: () => { try { return localStorage.theme; } catch { return undefined; } },
                 set: (name) => { try { localStorage.theme = name; } catch { /* a file may have no storage */ } } };
function wear(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
for (const choice of all("input[name=theme]")) {
  if (choice.value === stored.get()) { choice.checked = true; wear(choice.value); }
  choice.addEventListener("change", () => { wear(choice.value); stored.set(choice.value); });
}

// marks tell their numbers under the pointer, and show the others of their layer
const tip = named("tip");
for (const title of all("svg title")) {
  const mark = title.parentNode;
  mark.dataset.tip = title.textContent;
  mark.setAttribute("aria-label", title.textContent);
  title.remove();
}
function place(event) {
  const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 16, above = event.clientY - tip.offsetHeight - 12;
  tip.style.left = `${Math.max(8, x)}px`;
  tip.style.top = `${below + tip.offsetHeight > innerHeight ? above : below}px`;
}
function same(mark, on) {
  if (!mark.dataset.case) return;
  for (const other of all("[data-case]", mark.ownerSVGElement))
    if (other.dataset.case === mark.dataset.case && other.dataset.operation === mark.dataset.operation)
      other.classList.toggle("same", on);
}
document.addEventListener("pointerover", (event) => {
  const mark = event.target.closest("[data-tip]");
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  tip.hidden = false;
  place(event);
  same(mark, true);
});
document.addEventListener("pointermove", (event) => { if (!tip.hidden) place(event); });
document.addEventListener("pointerout", (event) => {
  const mark = event.target.closest("[data-tip]");
  if (!mark) return;
  tip.hidden = true;
  same(mark, false);
});

// filters: by operation, by a part of a layer's name, and whether all ladders are seen
function show(id) {
  const shown = named(id);
  const operation = document.querySelector(`[data-filter="${id}"]`).value;
  const search = document.querySelector(`[data-search="${id}"]`)?.value.trim().toLowerCase() ?? "";
  const every = document.querySelector(`[data-all="${id}"]`)?.getAttribute("aria-pressed") === "true";
  let count = 0;
  for (const one of all("[data-operation]", shown)) {
    const fits = (!operation || one.dataset.operation === operation)
      && (!search || one.textContent.toLowerCase().includes(search))
      && (every || !one.classList.contains("more"));
    if (one.ownerSVGElement) one.classList.toggle("dim", !fits);
    else one.hidden = !fits;
    count += fits;
  }
  const output = document.querySelector(`[data-count="${id}"]`);
  if (output) output.textContent = `${count} layer${count === 1 ? "" : "s"}`;
}
for (const select of all("[data-filter]")) select.addEventListener("change", () => show(select.dataset.filter));
for (const input of all("[data-search]")) input.addEventListener("input", () => show(input.dataset.search));
for (const button of all("[data-all]"))
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    show(button.dataset.all);
  });

// tables: a click sorts, another turns the order; what has no value stays at the end
function sort(header) {
  const table = header.closest("table"), body = table.tBodies[0];
  const column = [...header.parentNode.children].indexOf(header);
  const down = header.ariaSort ? header.ariaSort === "ascending" : header.dataset.kind === "number";
  const value = (row) => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
  const sign = down ? -1 : 1;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (header.dataset.kind === "number" ? x - y : x.localeCompare(y));
  });
  for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
}
for (const header of all("table.sortable thead th")) header.firstChild.addEventListener("click", () => sort(header));
for (const select of all("[data-filter]")) show(select.dataset.filter); // a browser may remember a choice
