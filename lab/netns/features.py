# SPDX-License-Identifier: MIT
"""What the kernel was built with: modules and CONFIG_ options that a test can ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from lab.errors import MissingError, raise_if_exhausted

# The modules that the lab uses, and the options that bring them (the Makefiles below net/ and drivers/net/).
MODULES: Final = {
    "br_netfilter": "CONFIG_BRIDGE_NETFILTER",
    "ip_tables": "CONFIG_IP_NF_IPTABLES",
    "ip6_tables": "CONFIG_IP6_NF_IPTABLES",
    "ipv6": "CONFIG_IPV6",
    "nf_conntrack": "CONFIG_NF_CONNTRACK",
    "nf_conntrack_netlink": "CONFIG_NF_CT_NETLINK",
    "nf_tables": "CONFIG_NF_TABLES",
    "nft_compat": "CONFIG_NFT_COMPAT",
    "nfnetlink_acct": "CONFIG_NETFILTER_NETLINK_ACCT",
    "nfnetlink_log": "CONFIG_NETFILTER_NETLINK_LOG",
    "nft_numgen": "CONFIG_NFT_NUMGEN",
    "sch_htb": "CONFIG_NET_SCH_HTB",
    "nfnetlink_queue": "CONFIG_NETFILTER_NETLINK_QUEUE",
    "sctp": "CONFIG_IP_SCTP",
    "veth": "CONFIG_VETH",
    "xt_TRACE": "CONFIG_NETFILTER_XT_TARGET_TRACE",
    "xt_NFQUEUE": "CONFIG_NETFILTER_XT_TARGET_NFQUEUE",
}


def require(name: str) -> None:
    """Refuse a kernel that is known to lack a module or an option. Where nothing tells, the test will.

    :raises MissingError: names the option that brings it.
    """
    options = _kernel_options()
    option = MODULES.get(name, name)
    if options and option not in options:
        raise MissingError(f"the kernel was built without {name}", f"boot one with {option}=y or =m")
    if name not in MODULES or options.get(option, "m") != "m" or Path("/sys/module", name).exists():
        return
    release = os.uname().release
    modules = _modules(release)
    if f"/{name}.ko" in modules:
        return
    if options:
        raise MissingError(f"the kernel's module {name} is missing", f"install the modules of {release}")
    if modules:
        raise MissingError(f"the kernel has no {name}", f"boot one with {option}=y or =m")


@cache
def _modules(release: str) -> str:
    """Read which modules there are or are built in, by kmod's modules.dep and modules.builtin; empty where unknown."""
    indexes = (Path("/lib/modules", release, name) for name in ("modules.dep", "modules.builtin"))
    return "".join(index.read_text() for index in indexes if index.exists())


@cache
def _kernel_options() -> Mapping[str, str]:
    """Read what the kernel was built with, from wherever a distribution puts it; empty where nobody did."""
    release = os.uname().release
    for place in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        try:
            data = Path(place).read_bytes()
        except OSError as error:
            raise_if_exhausted(error)
            continue
        import gzip

        text = (gzip.decompress(data) if place.endswith(".gz") else data).decode()
        return dict(line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
    return {}
