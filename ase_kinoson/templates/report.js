// Tables of the report: sorting, and copying as CSV. Without this script the page reads the same.
(() => {
  "use strict";
  const UNKNOWN = "not known";
  const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const NUMBER =
    /^\(?([+-]?(?:\d+\.?\d*|\.\d+))(?:\(\d+\.?\d*\))?(?:\s*±\s*[\d.]+)?\)?(?:e([+-]?\d+)|\s*×\s*10([+-]?\d+))?(?![\d.+-])\s*(%)?/i;
  const ORDER = { none: "ascending", ascending: "descending", descending: "none" };

  const ascii = (text) =>
    text.trim().replace(/[−⁻]/g, "-").replace(/⁺/g, "+")
      .replace(/[⁰¹²³⁴⁵⁶⁷⁸⁹]/g, (c) => String(SUPERSCRIPTS.indexOf(c)));

  // A cell's number: what it carries in full, else what its text says; NaN where it is none.
  function number(cell) {
    if (cell.dataset.value) return Number(cell.dataset.value);
    const found = ascii(cell.textContent).match(NUMBER);
    if (!found) return NaN;
    return Number(`${found[1]}e${found[2] || found[3] || 0}`) / (found[4] ? 100 : 1);
  }

  const empty = (cell) => ["", UNKNOWN].includes(cell.textContent.trim());

  // Rows that repeat the name of the row above say so softly.
  function soften(rows) {
    rows.forEach((row, i) => {
      const same = i > 0 && rows[i - 1].cells[0].textContent === row.cells[0].textContent;
      row.classList.toggle("rep", same);
    });
  }

  function sorted(rows, column, direction) {
    if (direction === "none") return rows;
    const cells = new Map(rows.map((row) => [row, row.cells[column]]));
    const filled = rows.filter((row) => !empty(cells.get(row)));
    const numeric = filled.every((row) => !Number.isNaN(number(cells.get(row))));
    const compare = numeric
      ? (a, b) => number(cells.get(a)) - number(cells.get(b))
      : (a, b) => cells.get(a).textContent.localeCompare(cells.get(b).textContent, "en", { numeric: true });
    const sign = direction === "ascending" ? 1 : -1;
    filled.sort((a, b) => sign * compare(a, b)); // stable: equal rows keep their order in both directions
    return [...filled, ...rows.filter((row) => empty(cells.get(row)))];
  }

  function sortable(table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent) return;
      const button = document.createElement("span"); // a <button> is not repeated on the next sheet of paper
      Object.assign(button, { className: "sort", role: "button", tabIndex: 0, title: "Sort" });
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      const turn = () => {
        const direction = ORDER[head.getAttribute("aria-sort")];
        heads.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", direction);
        const now = sorted(rows, column, direction);
        body.append(...now);
        soften(now);
      };
      button.addEventListener("click", turn);
      button.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault(); // the space bar would scroll
        turn();
      });
    });
  }

  const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);

  // Columns of the CSV: a column of numbers becomes value, error and, where they differ, unit.
  function csv(table) {
    const rows = [...table.tBodies[0].rows];
    const columns = [];
    [...table.tHead.rows[0].cells].forEach((head, j) => {
      const name = head.textContent;
      const cells = rows.map((row) => row.cells[j]);
      const units = [...new Set(cells.map((cell) => cell.dataset.unit).filter(Boolean))];
      const text = (cell) => (empty(cell) ? "" : cell.textContent.trim());
      if (!units.length) return columns.push([name, ...cells.map(text)]);
      const one = units.length === 1 && units[0] !== "1" ? ` [${units[0]}]` : "";
      columns.push([name + one, ...cells.map((cell) => cell.dataset.value || text(cell))]);
      if (cells.some((cell) => cell.dataset.error))
        columns.push([`${name} error${one}`, ...cells.map((cell) => cell.dataset.error || "")]);
      if (units.length > 1) columns.push([`${name} unit`, ...cells.map((cell) => cell.dataset.unit || "")]);
    });
    return columns[0].map((_, i) => columns.map((column) => quote(column[i])).join(",")).join("\r\n") + "\r\n";
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not there, or not allowed for a page from a disk: the old way
    }
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    let done = false;
    try {
      done = document.execCommand("copy");
    } catch {
      done = false;
    }
    area.remove();
    return done;
  }

  function copyable(table, status) {
    const bar = table.closest(".table").querySelector(".bar");
    const caption = bar.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy as CSV";
    button.setAttribute("aria-label", `Copy as CSV: ${caption}`);
    bar.append(button);
    button.addEventListener("click", async () => {
      const text = csv(table);
      const done = await copy(text);
      bar.querySelector("textarea")?.remove();
      if (!done) {
        const area = document.createElement("textarea");
        Object.assign(area, { value: text, readOnly: true, rows: 6, className: "csv", title: "The table as CSV" });
        bar.append(area);
        area.select();
      }
      status.textContent = done ? "Copied." : "Copying is not allowed here: take the text below the caption.";
      button.textContent = done ? "Copied" : "Copy by hand";
      setTimeout(() => (button.textContent = "Copy as CSV"), 2000);
    });
  }

  const status = document.createElement("p");
  status.className = "hidden";
  status.setAttribute("role", "status");
  document.body.append(status);
  document.querySelectorAll("main table").forEach((table) => {
    sortable(table);
    copyable(table, status);
  });
})();
