"use strict";
// Everything can be read without this: it opens the trial that a cell leads to, and hides what is not looked for.
const open = () => {
  const trial = document.getElementById(location.hash.slice(1));
  if (trial?.matches("details")) { trial.hidden = false; trial.open = true; trial.scrollIntoView(); trial.firstElementChild.focus(); }
};
addEventListener("hashchange", open);
open();
document.addEventListener("click", event => {
  const link = event.target.closest("a[href^='#t']");
  if (link && link.hash === location.hash) open();
});
const form = document.querySelector(".filter"), words = form.elements.words, outcome = form.elements.outcome;
const cells = [...document.querySelectorAll("td[data-o]")], said = form.querySelector("output");
const narrow = () => {
  const sought = words.value.toLowerCase().split(/\s+/).filter(Boolean), wanted = outcome.value;
  let count = 0;
  for (const cell of cells) {
    const text = `${cell.dataset.s} ${cell.textContent}`.toLowerCase();
    const found = (!wanted || cell.dataset.o.split("|").includes(wanted)) && sought.every(one => text.includes(one));
    cell.classList.toggle("off", !found);
    count += found;
    const trial = document.getElementById(cell.querySelector("a")?.hash.slice(1));
    if (trial) trial.hidden = !found;
  }
  for (const row of document.querySelectorAll("tbody tr:not(.group)"))
    row.hidden = !row.querySelector("td[data-o]:not(.off)");
  for (const body of document.querySelectorAll("tbody"))
    body.hidden = !body.querySelector("tr:not(.group):not([hidden])");
  said.textContent = `${count} of ${cells.length} ${form.dataset.of}`;
};
form.addEventListener("input", narrow);
form.addEventListener("submit", event => event.preventDefault());
form.hidden = false;
narrow();
