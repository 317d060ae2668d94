"use strict";

// Returns what a cell sorts by: a number, text, or null for a dash.
function key(cell) {
  const text = cell.firstChild?.textContent.trim() ?? "";
  if (text === "–" || text === "") return null;
  if (text === "exact") return Infinity;
  const number = parseFloat(text.split("…").pop().replace("<", ""));
  if (cell.tagName === "TH" || Number.isNaN(number)) return text.toLowerCase();
  return text.startsWith("<") ? number / 2 : number;
}

// Orders keys; dashes come last in either direction.
function compare(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return a === b ? 0 : (a - b) * direction;
  return String(a).localeCompare(String(b), "en", { numeric: true }) * direction;
}

// Sorts the rows by a column: ascending, descending, then as they were.
function sort(table, rows, heading) {
  const directions = { none: "ascending", ascending: "descending", descending: "none" };
  const next = directions[heading.getAttribute("aria-sort") ?? "none"];
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  let order = rows;
  if (next !== "none") {
    heading.setAttribute("aria-sort", next);
    const direction = next === "ascending" ? 1 : -1;
    const keyed = rows.map((row) => [key(row.cells[heading.cellIndex]), row]);
    order = keyed.sort((a, b) => compare(a[0], b[0], direction)).map((pair) => pair[1]);
  }
  table.tBodies[0].append(...order);
}

for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows];
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, rows, heading));
    heading.append(button);
  }
}

const filter = document.querySelector(".filter");
const input = filter.querySelector("input");
const filtered = [...filter.parentElement.querySelectorAll("tbody tr, .gallery > details")];

// Hides rows and plots that lack one of the words.
function applyFilter() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  let rows = 0;
  for (const element of filtered) {
    const text = (element.querySelector("summary") ?? element).textContent.toLowerCase();
    element.hidden = !words.every((word) => text.includes(word));
    if (element.tagName !== "TR") continue;
    rows += 1;
    if (!element.hidden) shown += 1;
  }
  filter.querySelector("output").textContent = words.length ? `${shown} of ${rows} rows` : "";
}

if (filtered.length) {
  filter.hidden = false;
  filter.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", applyFilter);
}

// Makes the target of a link visible: without the filter, unfolded.
function reveal(hash) {
  const target = document.getElementById(hash.slice(1));
  if (target?.closest("[hidden]")) {
    input.value = "";
    applyFilter();
  }
  const folded = target?.closest("details");
  if (folded) folded.open = true;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link) reveal(link.getAttribute("href"));
});
if (location.hash) reveal(location.hash);

for (const block of document.querySelectorAll("pre")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const code = block.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent + "\n");
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  block.append(button);
}
