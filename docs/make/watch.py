"""Make docs/watch.svg: the screen of `lab watch` while a case is played in a lab.

PYTHONPATH=. python docs/make/watch.py > docs/watch.svg
"""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import closing, contextmanager

from lab.cases import CASES
from lab.fabric.lab import Lab
from lab.fixes import FIXES
from lab.netns import userns
from lab.observed.wanted import Wanted
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.vocabulary import Family
from lab.watch.host import WatchedHost
from lab.watch.lines import Lines
from lab.watch.screen import WatchApp
from lab.watch.watch import Watch

SIZE = (100, 30)


async def picture(lab, behaviour):
    """Return the screen, with the leak chosen and told of."""

    @contextmanager
    def lent(_setting):
        yield lab

    hosts = [WatchedHost(name, host.namespace, behaviour, services_only=False) for name, host in lab.hosts.items()]
    with closing(Watch(hosts)) as watch:
        app = WatchApp(watch, "the lab kube-proxy", Wanted(), None, entries_only=False)
        async with app.run_test(size=SIZE) as pilot:
            setting = Setting(CASES["beyond-window"], FIXES["none"], lab.topology, Family.IPV4)
            await runner.run(setting, behaviour, build=lent)
            await pilot.press("v", "enter")
            lines = app.query_one(Lines)
            while (
                at := next((n for n, row in enumerate(lines.items) if "Reset" in type(row[0]).__name__), None)
            ) is None:
                await pilot.pause(0.05)
            lines.choose(at + 8)
            await pilot.pause(0.3)
            lines.choose(next(n for n, row in enumerate(lines.items) if "Leak" in type(row[0]).__name__))
            await pilot.pause(0.3)
            # Without the fonts of somebody's server: any of the reader's with cells of one width will do.
            return re.sub(r"@font-face \{.*?\}\s*", "", app.export_screenshot(title="sudo lab watch"), flags=re.DOTALL)


def main():
    userns.ensure()
    behaviour = asyncio.run(probe.ask(Family.IPV4))
    with Lab(load("kube-proxy"), family=Family.IPV4) as lab:
        sys.stdout.write(asyncio.run(picture(lab, behaviour)))


if __name__ == "__main__":
    main()
