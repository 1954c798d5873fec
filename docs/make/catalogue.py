"""Puts what `lab list --md` prints into docs/catalogue.md, between its two comments.

::

    python docs/make/catalogue.py
"""

from __future__ import annotations

import re
from pathlib import Path

from lab.cli.catalogue_markdown import markdown

PAGE = Path(__file__).parents[1] / "catalogue.md"
PLACE = re.compile(r"(<!-- made by: lab list --md -->\n).*(<!-- end -->\n)", re.DOTALL)

if __name__ == "__main__":
    made = "\n".join(markdown())
    PAGE.write_text(PLACE.sub(lambda found: f"{found[1]}\n{made}\n\n{found[2]}", PAGE.read_text()))
