"use strict";
// Everything can be read without this: it opens the trial that a cell leads to, or all, hides what is not looked for,
// and says what scrolls sideways, where it keeps a diagram's times in sight.
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
const fold = document.querySelector(".fold");
for (const button of fold.children)
  button.addEventListener("click", () => {
    for (const trial of document.querySelectorAll(".trial:not([hidden])")) trial.open = button.value === "open";
  });
fold.hidden = false;
const sizes = new ResizeObserver(entries => {
  for (const { target } of entries) target.classList.toggle("wide", target.scrollWidth > target.clientWidth);
});
for (const one of document.querySelectorAll(".frame, figure")) {
  sizes.observe(one);
  one.addEventListener("scroll", () => one.style.setProperty("--scrolled", `${one.scrollLeft}px`), { passive: true });
}
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
