const order = new Intl.Collator("en", { numeric: true });
const body = document.querySelector("tbody");
const value = (line, column) => line.cells[column].dataset.value ?? line.cells[column].textContent.trim();
const compare = (a, b) => (isNaN(a) || isNaN(b) ? order.compare(a, b) : a - b);

for (const heading of document.querySelectorAll("thead th:not(.unsorted)")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => {
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const lines = [...body.rows].map((line) => [value(line, heading.cellIndex), line]);
    // a run without the value comes last, whichever way
    lines.sort(([a], [b]) => (a === "") - (b === "") || sign * compare(a, b));
    body.append(...lines.map(([, line]) => line));
  });
}

const filter = document.querySelector(".filter");
if (filter) {
  const lines = [...body.rows].map((line) => [line.textContent.toLowerCase(), line]);
  const show = () => {
    const words = filter.querySelector("input").value.toLowerCase().split(/\s+/);
    for (const [text, line] of lines) line.hidden = !words.every((word) => text.includes(word));
    const shown = lines.filter(([, line]) => !line.hidden).length;
    filter.querySelector("output").textContent = shown < lines.length ? `${shown} of ${lines.length}` : "";
  };
  filter.hidden = false;
  filter.addEventListener("input", show);
  show();
}
