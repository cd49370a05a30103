// The contents are folded on a phone.
if (matchMedia("(max-width: 900px)").matches) document.querySelector("nav details")?.removeAttribute("open");
// Click or press Enter on a column head: sort the table by it; again: the other way round. Empty cells stay last.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const key = cell.dataset.key;
    if (key !== undefined) {
      if (key === "inf") return Infinity;
      if (key === "-inf") return -Infinity;
      const number = Number(key);
      if (!Number.isNaN(number)) return number;
    }
    return cell.textContent.trim();
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  const sort = (head) => {
    const table = head.closest("table");
    const body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = Array.from(body.rows, (row, index) => ({ row, index, key: value(row, head.cellIndex) }));
    const empty = (key) => key === "–" || key === "";
    rows.sort((a, b) => {
      if (empty(a.key) !== empty(b.key)) return empty(a.key) ? 1 : -1;
      return (down ? compare(b.key, a.key) : compare(a.key, b.key)) || a.index - b.index;
    });
    body.append(...rows.map((item) => item.row));
  };
  for (const head of document.querySelectorAll("th")) {
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(head); }
    });
  }
})();
