// Finds answers: by text, by evaluation set, or those whose label changes. All rows are in the page already.
const find = document.getElementById("find");
const set = document.getElementById("set");
const changed = document.getElementById("changed");
const count = document.getElementById("count");
const rows = Array.from(document.querySelectorAll("details.asked"), (row) => ({ row, text: row.textContent.toLowerCase() }));

function show() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { row, text } of rows) {
    const fits =
      (!set.value || row.dataset.set === set.value) &&
      (!changed.checked || row.dataset.changed === "yes") &&
      words.every((word) => text.includes(word));
    row.hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${rows.length} prompts`;
}

for (const control of [find, set, changed]) control.addEventListener("input", show);
document.getElementById("controls").hidden = false;
show();
