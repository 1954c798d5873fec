# SPDX-License-Identifier: MIT
"""A router that holds back a share of the data packets, so that some of them come late."""

from __future__ import annotations

import json
from typing import Final

from lab.errors import MissingError
from lab.fabric.host import RunningHost
from lab.netns import ProgramError

_TABLE: Final = "lab_congestion"

# Two queues: what is held back goes at 600 ms a packet, ten packets at most, the rest at the link's speed. netem would
# say it in a line, but a kernel need not have it, and HTB is everywhere.
_QUEUES: Final = """\
qdisc add dev {interface} root handle 1: htb default 10
class add dev {interface} parent 1: classid 1:10 htb rate 50mbit
class add dev {interface} parent 1: classid 1:20 htb rate 20kbit burst 1500 cburst 1500
qdisc add dev {interface} parent 1:10 pfifo limit 1000
qdisc add dev {interface} parent 1:20 pfifo limit 10
"""

# Data packets alone: a handshake that was held back would tell nothing and cost a second.
_SHARE: Final = """
table inet {table} {{
    counter held {{
    }}
    chain postrouting {{
        type filter hook postrouting priority filter; policy accept;
        oifname "{interface}" meta length > 1000 numgen random mod {one_in} 0 counter name "held" meta priority set 1:20
    }}
}}
"""


def hold_back(router: RunningHost, interface: str, one_in: int) -> None:
    """Delay one in so many data packets that leave a router by an interface, at random.

    :raises MissingError: tc is not installed, or the kernel has no HTB.
    """
    try:
        router.run("tc", "-batch", "-", text=_QUEUES.format(interface=interface))
    except ProgramError as error:
        if "qdisc kind is unknown" not in str(error):
            raise
        raise MissingError("the kernel has no HTB", "modprobe sch_htb (NET_SCH_HTB)") from None
    router.nft.run(_SHARE.format(table=_TABLE, interface=interface, one_in=one_in))


def held(router: RunningHost) -> int:
    """Return how many packets a router has held back, or dropped because ten were waiting."""
    listing = json.loads(router.nft.run(f"list counters table inet {_TABLE}", json=True))
    return sum(item["counter"]["packets"] for item in listing["nftables"] if "counter" in item)
