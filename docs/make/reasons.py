"""Makes docs/reasons.md of the table of conntrack's reasons.

::

    python docs/make/reasons.py > docs/reasons.md
"""

from __future__ import annotations

from lab.report.reasons import LEGEND, markdown

_INTRODUCTION = f"""\
# What conntrack says of packets: every reason

```sh
lab show --reasons                # this table
lab show --reasons --json         # the same for programs; `lab list --json` has it too
```

With `nf_conntrack_log_invalid` set (6: TCP, 255: every protocol) the kernel logs why it does not like a packet, as
`nf_ct_proto_6: SEQ is over upper bound ...`, with the number of the protocol. Such a line alone does not mean that the
packet is INVALID: what is *ignored* is let through and translated. [`lab explain`](explain.md) answers lines of a log
by this table.

The words are those of the source of Linux 5.10, 5.18 and 6.1, and of the modules of Debian's 5.10, 6.1, 6.12, 6.18 and
7.3; a booted 5.10 was heard saying those of TCP. Tests send such packets on the running kernel, by the cases that are
named here, and hold its words against the table.

{LEGEND}

No reasons are given for GRE and for protocols that conntrack does not know: it finds nothing of them INVALID.
"""

if __name__ == "__main__":
    print(_INTRODUCTION, end="")
    print(*markdown(), sep="\n")
    print("\nThis page is made by `python docs/make/reasons.py > docs/reasons.md`.")
