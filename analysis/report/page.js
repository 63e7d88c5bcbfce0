"use strict";
// sort by a column: a number where there is one at the start of the cell, else the text
function valueOf(cell) {
  const text = cell ? cell.textContent.trim() : "";
  const number = parseFloat(text.replace(/,/g, "").replace("−", "-"));
  return Number.isNaN(number) ? text : number;
}
function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;  // what is no number comes last
}
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = button.closest("table"), at = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.querySelector("tbody.rows");
    const rows = [...body.rows].map(row => [valueOf(row.cells[at]), row]);
    rows.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]));
    for (const [, row] of rows) body.append(row);
  });
}
for (const input of document.querySelectorAll("input[type=search]")) {
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase();
    for (const row of input.closest("section").querySelectorAll("tbody.rows tr"))
      row.hidden = !row.textContent.toLowerCase().includes(words);
  });
}
// show or hide the estimators of the tables: data-of names those that an element is of, one a line
const marked = [...document.querySelectorAll("[data-of]")], nav = document.querySelector("nav");
const names = [...new Set(marked.filter(each => each.closest("table")).map(each => each.dataset.of))];
const off = new Set();
for (const name of names.length > 1 ? names : []) {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => {
    if (box.checked) off.delete(name); else off.add(name);
    for (const each of marked)
      each.style.display = each.dataset.of.split("\n").every(of => off.has(of)) ? "none" : "";
  });
  label.append(box, " " + name);
  nav.append(label);
}
nav.hidden = names.length < 2;
