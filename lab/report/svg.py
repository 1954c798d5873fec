# SPDX-License-Identifier: MIT
"""Parts of a picture for a page, as text; how they look is said in the page's own style sheet."""

from __future__ import annotations

from html import escape

#: How wide a letter of the pictures' typeface is, in pixels: 10.5 of a monospaced one, with a little to spare.
LETTER = 6.4


def group(parts: list[str], kind: str) -> str:
    """Return parts that look alike."""
    return f'<g class="{kind}">{"".join(parts)}</g>'


def picture(width: float, height: float, title: str, description: str, parts: list[str], kind: str) -> str:
    """Return a whole picture, with the words for those who do not see it."""
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return (
        f'<svg class="{kind}" role="img" {size}>'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    """Return a line of text.

    :param kind: its class; empty for that of what is around it.
    :param anchor: ``middle`` or ``end``, where it does not start there.
    """
    its_class = f' class="{kind}"' if kind else ""
    its_anchor = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{its_class}{its_anchor}>{escape(text, quote=False)}</text>'


def line(x: float, y: float, to_x: float, to_y: float, kind: str = "") -> str:
    """Return a straight line."""
    its_class = f' class="{kind}"' if kind else ""
    return f'<path{its_class} d="M{x:.0f} {y:.0f}L{to_x:.0f} {to_y:.0f}"/>'


def arrow(x: float, y: float, to_x: float, kind: str) -> str:
    """Return a level arrow with its head."""
    back = -8 if to_x > x else 8
    head = f'<path class="head" d="M{to_x:.0f} {y:.0f}l{back} -4v8z"/>'
    return f'<g class="{kind}"><path d="M{x:.0f} {y:.0f}H{to_x + back / 2:.0f}"/>{head}</g>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a rectangle."""
    return f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="3"/>'


def cross(x: float, y: float) -> str:
    """Return the mark of where something ended."""
    return f'<path class="cross" d="M{x - 5:.0f} {y - 5:.0f}l10 10m0 -10l-10 10"/>'


def disc(x: float, y: float, number: str) -> str:
    """Return a number in a disc."""
    return f'<g class="disc"><circle cx="{x:.0f}" cy="{y:.0f}" r="8"/>{words(x, y + 4, number, anchor="middle")}</g>'
