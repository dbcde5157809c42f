"use strict";
// What a report does beyond showing itself: light or dark by a button, values under a pointer, tables that sort, files of numbers, folded
// sections that open when the index leads to them. Without it the page is whole, but for these.

const make = (name, into, more = {}) => Object.assign(into.appendChild(document.createElement(name)), more);
const draw = (name, into, attributes) => {
  const made = into.appendChild(document.createElementNS(into.namespaceURI, name));
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const numbersOf = link => decodeURIComponent(link.getAttribute("href").split(",").slice(1).join(","));

function addTheme() {
  const themes = ["system", "light", "dark"], root = document.documentElement;
  const button = make("button", document.body, { className: "theme", type: "button", title: "colors as the system has them, light, or dark" });
  const show = theme => { root.dataset.theme = theme; button.textContent = `colors: ${theme}`; };
  show(root.dataset.theme || "system");
  button.onclick = () => show(themes[(themes.indexOf(root.dataset.theme) + 1) % 3]);
}

function addSaving(link) {  // a browser refuses to follow an address of megabytes
  link.addEventListener("click", () => {
    const address = link.getAttribute("href");
    link.href = URL.createObjectURL(new Blob([numbersOf(link)], { type: "text/csv" }));
    setTimeout(() => { URL.revokeObjectURL(link.href); link.setAttribute("href", address); }, 1000);
  });
}

function said(value, unit) {
  if (unit !== "bytes") return String(+value.toPrecision(4));
  for (const name of ["B", "kB", "MB", "GB", "TB"]) {
    if (Math.abs(value) < 999.5) return `${+value.toPrecision(3)} ${name}`;
    value /= 1000;
  }
  return `${+value.toPrecision(3)} PB`;
}

function cellsOf(line) {  // of the first line, where names may be quoted
  return [...line.matchAll(/(?:^|,)("(?:[^"]|"")*"|[^,]*)/g)].map(found => found[1].replace(/^"|"$/g, "").replaceAll('""', '"'));
}

function addHover(svg) {
  const { x, y, curves, unit } = JSON.parse(svg.dataset.hover), figure = svg.closest("figure");
  const place = ([start, end, low, high, log], value) => {
    const of = log ? Math.log : Number, share = high === low ? 0.5 : (of(value) - of(low)) / (of(high) - of(low));
    return start + Math.min(Math.max(share, 0), 1) * (end - start);
  };
  let names, rows, marks, readout, at = -1;
  const begin = () => {
    const [first, ...lines] = numbersOf(figure.querySelector(".csv")).trimEnd().split("\n");
    names = cellsOf(first);
    rows = lines.map(line => line.split(",").map(cell => cell === "" ? NaN : Number(cell)));
  };
  const hide = () => { marks?.remove(); readout?.remove(); at = -1; };
  const nearest = (column, from) => {  // the row that has a number there, and the nearest x
    const close = row => Math.abs(place(x, rows[row][0]) - place(x, from));
    return rows.reduce((best, row, i) => Number.isNaN(row[column]) || (best >= 0 && close(best) <= close(i)) ? best : i, -1);
  };
  const show = row => {
    hide();
    at = row;
    const here = rows[at][0], left = place(x, here);
    marks = draw("g", svg, { "pointer-events": "none" });
    draw("line", marks, { class: "cursor", x1: left, x2: left, y1: y[0], y2: y[1] });
    readout = make("div", figure, { className: "readout", role: "status" });
    make("div", readout, { textContent: `${names[0]} ${said(here)}` });
    const strokes = [...svg.querySelectorAll(':scope > path[fill="none"]')].reverse();
    for (let k = 1; k < names.length; k += k <= curves ? 1 : 2) {
      const found = nearest(k, here);
      if (found < 0) continue;
      const value = rows[found][k], where = rows[found][0] === here ? "" : ` (${names[0]} ${said(rows[found][0])})`;
      const text = k <= curves ? said(value, unit) : `${said(value, unit)} to ${said(rows[found][k + 1], unit)}`;
      make("div", readout, { textContent: `${k <= curves ? names[k] : names[k].replace(/, low$/, "")}: ${text}${where}` });
      const color = k <= curves && strokes[k - 1]?.getAttribute("stroke");
      if (color) draw("circle", marks, { cx: place(x, rows[found][0]), cy: place(y, value), r: 4, fill: "none", stroke: color, "stroke-width": 2 });
    }
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width, right = left > svg.viewBox.baseVal.width / 2;
    readout.style.top = `${svg.getBoundingClientRect().bottom - figure.getBoundingClientRect().top - 8}px`;
    readout.style[right ? "right" : "left"] = `${(right ? svg.viewBox.baseVal.width - left : left) * scale - 8}px`;
  };
  svg.addEventListener("pointermove", event => {
    if (!rows) begin();
    const box = svg.getBoundingClientRect(), point = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const row = rows.reduce((best, each, i) => Math.abs(place(x, each[0]) - point) < Math.abs(place(x, rows[best][0]) - point) ? i : best, 0);
    if (row !== at) show(row);
  });
  for (const leaves of ["pointerleave", "blur"]) svg.addEventListener(leaves, hide);
  svg.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    if (!rows) begin();
    event.preventDefault();
    show(Math.min(Math.max(at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step, 0), rows.length - 1));
  });
}

function addSorting(table) {
  const heads = [...table.querySelectorAll("th")], rows = [...table.querySelectorAll("tr")].slice(1);
  const valueOf = (row, column) => {  // the number that a text begins with, perhaps in bytes
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent;
    const found = text.match(/^([-+]?[\d.]+(?:e[-+]?\d+)?)(?: ([kMGTP]?B))?(?: |$)/);
    if (text === "-" || text === "") return null;
    return found ? Number(found[1]) * 1000 ** (found[2] ? " kMGTP".indexOf(found[2].at(-2) ?? " ") : 0) : text;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.onclick = () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending", sign = order === "ascending" ? 1 : -1;
      heads.forEach(each => each.setAttribute("aria-sort", each === head ? order : "none"));
      rows.sort((a, b) => {  // what has no value is last in either order
        const [first, second] = [valueOf(a, column), valueOf(b, column)];
        return first === null || second === null ? (first === null) - (second === null) : sign * compare(first, second);
      });
      rows.forEach(row => row.parentNode.append(row));
    };
  });
}

function unfold() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.tagName === "DETAILS") target.open = true;
}

document.addEventListener("DOMContentLoaded", () => {
  addTheme();
  document.querySelectorAll("a.csv").forEach(addSaving);
  document.querySelectorAll("svg[data-hover]").forEach(addHover);
  document.querySelectorAll("table.sortable").forEach(addSorting);
  addEventListener("hashchange", unfold);
  unfold();
});
