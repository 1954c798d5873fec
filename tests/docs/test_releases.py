"""docs/releases.md is what the table of changes says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_the_page_is_the_table():
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    maker = CHECKOUT / "docs" / "make" / "releases.py"
    made = subprocess.run([sys.executable, maker], env=environment, capture_output=True, text=True, check=True).stdout
    page = (CHECKOUT / "docs" / "releases.md").read_text()
    assert made == page, "make it anew: python docs/make/releases.py > docs/releases.md"
    assert "(docs/releases.md)" in (CHECKOUT / "README.md").read_text()
