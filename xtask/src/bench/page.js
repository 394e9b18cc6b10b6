// A click on a heading sorts the table by that column; a second one turns the order round.
for (const table of document.querySelectorAll('table.sorts')) {
  table.tHead.addEventListener('click', event => {
    const heading = event.target.closest('th'), column = heading.cellIndex;
    const down = heading.dataset.down = heading.dataset.down === '1' ? '0' : '1';
    const key = row => { const value = row.cells[column].dataset.value; return value === undefined ? row.cells[column].textContent : +value; };
    const rows = [...table.tBodies[0].rows].sort((a, b) => { const x = key(a), y = key(b); return (x > y) - (x < y); });
    if (down === '0') rows.reverse();
    table.tBodies[0].append(...rows);
  });
}
