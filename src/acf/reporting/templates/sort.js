// Headings of tables become buttons that sort their column; without a script the tables stay as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.filter((row) => !row.classList.contains("absent")).length < 2) continue;
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", direction);
      body.append(...sorted(rows, column, direction === "ascending" ? 1 : -1));
    });
  });
}

// Rows without a value in the column stay below, in both directions.
function sorted(rows, column, sign) {
  const value = (row) => {
    if (row.classList.contains("absent")) return null;
    const cell = row.cells[column];
    if (cell.dataset.key) return Number(cell.dataset.key);
    const text = cell.textContent.trim();
    return text === "—" || text === "" ? null : text;
  };
  const keyed = rows.map((row) => [value(row), row]);
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const present = keyed.filter(([key]) => key !== null).sort(([a], [b]) => sign * compare(a, b));
  const without = keyed.filter(([key]) => key === null);
  return [...present, ...without].map(([, row]) => row);
}
