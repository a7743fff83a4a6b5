for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement, row = heading.parentElement, body = row.closest("table").tBodies[0];
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const text = (line) => line.children[heading.cellIndex].textContent.trim();
    const lines = [...body.rows].sort((a, b) => text(a).localeCompare(text(b), "en", { numeric: true }));
    body.append(...(descending ? lines.reverse() : lines));
    const blank = lines.filter((line) => text(line) === "");
    body.append(...blank);
  });
}
