"""Makes docs/releases.md of the table of changes.

::

    python docs/make/releases.py > docs/releases.md
"""

from __future__ import annotations

from collections.abc import Iterator

from lab.kubeproxy.changes import CHANGES, NFT_ALPHA, Change
from lab.kubeproxy.faults import FAULTS
from lab.kubeproxy.releases import NEWEST, OLDEST
from lab.vocabulary import ProxyMode

_PULL = "https://github.com/kubernetes/kubernetes/pull"

_INTRODUCTION = f"""\
# What changed in kube-proxy's rules, release by release

v1.{OLDEST} to v1.{NEWEST}, iptables and nftables mode: each change with its name in the lab, the pull requests that
made it where they are known, and the patch releases of earlier minors that have it as well. Proved by the rules that
real kube-proxies of 26 releases wrote for the same objects (`tests/kubeproxy/dumps.md`): each change shows in the rules
of the first release that has it and not in those before. A change with a star does not show there: it was read in the
source, or seen with other objects or settings. What the node is set to was seen in the same runs; which entries are
deleted, by the calls of conntrack of such programs and, from v1.32 on, by the entries that were gone.

`lab rules OBJECTS --since v1.28 --proxy-version v1.33` shows what an upgrade changes in the rules of your own Services.

This page is made by `python docs/make/releases.py > docs/releases.md`.
"""


def main() -> None:
    print(_INTRODUCTION)
    for minor in range(NEWEST, OLDEST, -1):
        changes = [change for change in CHANGES.values() if change.minor == minor]
        print(f"## v1.{minor}\n")
        if changes:
            print("| change | what it does | it changes | mode | releases | pull requests |\n|---|---|---|---|---|---|")
            print(*(_row(change) for change in changes), sep="\n", end="\n\n")
        else:
            print("Nothing.\n")
    print("## What real ones do wrong\n")
    print("| releases | what happens |\n|---|---|")
    print(*_faults(), sep="\n")


def _row(change: Change) -> str:
    modes = " and ".join(mode for mode in ProxyMode if mode in change.modes)
    if len(change.modes) > 1 and change.minor < NFT_ALPHA.minor:
        modes = "iptables; nftables from its start"
    releases = ", ".join(change.releases)
    pulls = ", ".join(f"[#{pull}]({_PULL}/{pull})" for pull in change.pulls)
    name = f"`{change.name}`{'*' * change.read}"
    what = change.what[0].upper() + change.what[1:] if change.what.split()[0].isalpha() else change.what
    return f"| {name} | {what}. | {change.area} | {modes} | {releases} | {pulls} |"


def _faults() -> Iterator[str]:
    for fault in FAULTS:
        yield f"| {fault.releases} | {fault.what} |"


if __name__ == "__main__":
    main()
