"""Pages in the distribution's chromium: a browser for a module's tests, and what is looked at in each page."""

from __future__ import annotations

import shutil
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: A browser that asks nothing of anybody.
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
#: Each text's contrast to what is behind it (WCAG 2.2, 1.4.3), as [ratio, text]; of pictures' text its fill counts.
CONTRAST = """() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = numbers(color).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (numbers(color).length === 3 || numbers(color)[3] === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    const unseen = element.closest("script, .unseen, .disc, option, desc, title");
    if (!own || unseen || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), element.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


def open_all(page: Any) -> None:
    """Unfold everything that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def expect(found):
    """Wait by the driver for what is said of a part of a page, whose own policy lets nobody evaluate text in it."""
    from playwright.sync_api import expect as expected  # it may be missing, and then nobody comes here

    return expected(found)
