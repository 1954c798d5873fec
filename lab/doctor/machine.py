"""What this machine has and lacks for a lab, found by asking; and whether it is itself a node with the bug.

The machine is only read. Kernel features are tried in a scratch namespace, as a lab would use them.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import platform
import socket
import subprocess
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.doctor.exposure import LIBERAL, Exposure, expose
from lab.errors import LabError, MachineError, MissingError, raise_if_exhausted
from lab.kernels import programs
from lab.netns import Namespace, Nft, RouteSocket, Xtables, nfacct, userns
from lab.netns.features import require
from lab.netns.program import find
from lab.netns.rtnetlink import VethEnd, veth
from lab.vocabulary import BE_LIBERAL, Backend, Family
from lab.wire import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    :param necessary: no lab can run without it.
    :param cure: what brings it, where it is missing.
    """

    name: str
    state: State
    detail: str
    cure: str = ""
    necessary: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """All that was found.

    :param sysctls: of the machine, by name; None where it has none of that name.
    :param conclusion: what ``exposure`` means, in a sentence.
    """

    checks: tuple[Check, ...]
    sysctls: dict[str, str | None]
    exposure: Exposure
    conclusion: str

    @property
    def ready(self) -> bool:
        """Whether a lab can run here."""
        return all(check.state is State.OK for check in self.checks if check.necessary)


_SYSCTLS: Final = (
    LIBERAL,
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_log_all_netns",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "user.max_net_namespaces",
    "user.max_user_namespaces",
)


def examine() -> Diagnosis:
    """Look at everything. An ordinary user's process becomes root of a user namespace of its own by it.

    :raises ExhaustedError: something ran out on the way, so that nothing is known of the machine.
    """
    sysctls = {name: _sysctl(name) for name in _SYSCTLS}
    is_privileged = userns.privileged()
    checks = [_kernel(), _privileges(is_privileged), _user_namespaces(), *_programs()]
    try:
        userns.ensure()
    except MissingError as error:
        checks.append(Check("kernel features", State.UNKNOWN, error.what, error.cure, necessary=True))
    else:
        checks += [*_features(), *_backends(), *(_behaviour(family) for family in Family)]
    checks += [*_some_cases(), _other_kernels()]
    # The modules that reading rules may ask for are loaded by now.
    exposure, conclusion = expose() if is_privileged else (Exposure.UNKNOWN, _for_root(sysctls[LIBERAL]))
    return Diagnosis(tuple(checks), sysctls, exposure, conclusion)


def to_json(diagnosis: Diagnosis) -> str:
    """Write a diagnosis as JSON."""
    return json.dumps({"ready": diagnosis.ready, **asdict(diagnosis)}, indent=2)


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Return the lines of a diagnosis, for a terminal."""
    width = max(len(check.name) for check in diagnosis.checks)
    for check in diagnosis.checks:
        cure = f" ({check.cure})" if check.cure else ""
        yield f"{check.state:8} {check.name:{width}}  {check.detail}{cure}"
    yield ""
    width = max(map(len, diagnosis.sysctls))
    for name, value in diagnosis.sysctls.items():
        yield f"{name:{width}}  {'-' if value is None else value}"
    yield ""
    yield f"A lab {'can' if diagnosis.ready else 'cannot'} run here."
    yield f"Is this machine a node with the bug? {diagnosis.conclusion}"


def _for_root(liberal: str | None) -> str:
    return f"Only root can read its rules: `sudo lab doctor`. {LIBERAL} is {liberal or 'unknown'}."


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError as error:
        raise_if_exhausted(error)
        return None


def _kernel() -> Check:
    return Check("kernel", State.OK, f"Linux {platform.release()} {platform.machine()}")


def _privileges(is_privileged: bool) -> Check:
    if is_privileged and os.geteuid() == 0:
        return Check("privileges", State.OK, "root: labs may also stay, and have names")
    if is_privileged:
        return Check("privileges", State.OK, "the capabilities that a lab needs")
    return Check("privileges", State.UNKNOWN, "an ordinary user: labs run in a user namespace, and do not stay", "sudo")


def _user_namespaces() -> Check:
    """Try in a child process: whoever enters a user namespace cannot leave it."""
    ours, its = os.pipe()
    child = os.fork()
    if child == 0:
        code, told = 0, ""
        try:
            userns.enter()
        except BaseException as error:  # whatever it is, this process must not go on as a second parent
            told = error.cure if isinstance(error, MissingError) else repr(error)
            code = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None) or 0
        os.write(its, told.encode())
        os._exit(code)
    os.close(its)
    with open(ours) as stream:
        cure = stream.read()
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise_if_exhausted(OSError(code, os.strerror(code)))
    if cure or code:  # a signal may have ended it without a word
        return Check("user namespaces", State.MISSING, "labs need root here", cure)
    return Check("user namespaces", State.OK, "labs also run without root")


_PROGRAMS: Final = (
    ("iptables-nft-restore", True),
    ("ip6tables-nft-restore", True),
    ("iptables-legacy-restore", False),
    ("ip6tables-legacy-restore", False),
    ("nft", False),
    ("ip", False),
)


def _programs() -> Iterator[Check]:
    for name, necessary in _PROGRAMS:
        yield _check(name, lambda name=name: _version(name), necessary=necessary)  # type: ignore[misc]


def _version(name: str) -> str:
    path = find(name)
    asked = subprocess.run([path, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise LabError(f"{path} -V: {asked.stderr.strip()}")
    return f"{path}: {asked.stdout.splitlines()[0]}"


def _check(name: str, trial: Callable[[], str], cure: str = "", *, necessary: bool = True) -> Check:
    """Make a check of a trial that returns what it found, or raises.

    :raises ExhaustedError: the trial came to no end for want of something.
    """
    try:
        return Check(name, State.OK, trial(), necessary=necessary)
    except (LabError, OSError) as error:
        raise_if_exhausted(error)
        known = MachineError.of(error) if isinstance(error, OSError) else error
        if isinstance(known, MissingError | MachineError):
            return Check(name, State.MISSING, known.what, known.cure or cure, necessary=necessary)
        return Check(name, State.MISSING, str(error), cure, necessary=necessary)


def _features() -> Iterator[Check]:
    try:
        first, second = Namespace.create(), Namespace.create()
    except (MachineError, OSError) as error:
        raise_if_exhausted(error)
        cure = "raise the sysctl user.max_net_namespaces, or build the kernel with CONFIG_NET_NS"
        yield Check("network namespaces", State.MISSING, str(error), cure, necessary=True)
        return
    yield Check("network namespaces", State.OK, "made", necessary=True)
    try:
        yield _check("veth", lambda: _veth(first, second), "modprobe veth (CONFIG_VETH)")
        yield _check("AF_PACKET", lambda: _packet_socket(first), "modprobe af_packet (CONFIG_PACKET)")
        yield _check("libnftables, nf_tables", lambda: _nf_tables(first), "modprobe nf_tables (CONFIG_NF_TABLES)")
        yield _check("conntrack", lambda: _conntrack(first), "modprobe nft_ct nf_conntrack (CONFIG_NFT_CT)")
        yield _check("ctnetlink", lambda: _ctnetlink(first), "modprobe nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)")
        yield _check("nfnetlink_log", lambda: _log(first), "modprobe nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG)")
        yield _check("IPv6", _ipv6, "boot without ipv6.disable=1, or use --family ipv4", necessary=False)
        yield _check("nfacct", lambda: _nfacct(first), necessary=False)
    finally:
        first.close()
        second.close()


def _some_cases() -> Iterator[Check]:
    """Look for what only some cases of the catalogue need; those are left out without it, aloud."""
    yield _check("for races", lambda: _built_in(hold.NEEDS), necessary=False)
    yield _check("for load", lambda: _built_in(("sch_htb", "nft_numgen")), necessary=False)
    for name in ("nginx", "curl", "tc"):
        yield _check(f"for load: {name}", lambda name=name: find(name), necessary=False)  # type: ignore[misc]


def _built_in(modules: Sequence[str]) -> str:
    for module in modules:
        require(module)
    return f"nothing says that the kernel lacks {', '.join(modules)}"


def _other_kernels() -> Check:
    def ask() -> str:
        programs.require()
        return "guests can be made and booted"

    return _check("for other kernels", ask, necessary=False)


def _veth(first: Namespace, second: Namespace) -> str:
    routes = RouteSocket(first)
    try:
        near, far = (VethEnd("doctor", 2, bytes((2, 0, 0, 0, 0, side))) for side in (1, 2))
        routes.apply([veth(near, far, second)])
    finally:
        routes.close()
    return "a pair was made"


def _packet_socket(namespace: Namespace) -> str:
    namespace.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    return "a socket was opened"


def _nf_tables(namespace: Namespace) -> str:
    return _load(namespace, "table inet doctor { }", "a table was made")


def _conntrack(namespace: Namespace) -> str:
    chain = "chain forward { type filter hook forward priority 0; ct state invalid drop; }"
    _load(namespace, f"table inet doctor_ct {{ {chain}; }}", "")
    liberal = namespace.sysctl(BE_LIBERAL)
    return f"ct state is known, and be_liberal of a fresh namespace is {liberal}"


def _load(namespace: Namespace, rules: str, found: str) -> str:
    nft = Nft(namespace)
    try:
        nft.run(rules)
    finally:
        nft.close()
    return found


def _ctnetlink(namespace: Namespace) -> str:
    from lab.conntrack.netlink import ConntrackTable

    table = ConntrackTable(namespace)
    try:
        table.statistics()
    finally:
        table.close()
    return "statistics were read"


def _log(namespace: Namespace) -> str:
    from lab.conntrack.nflog import PacketLog

    PacketLog(namespace).close()
    return "the reasons for INVALID can be listened to"


def _ipv6() -> str:
    if not Path("/proc/sys/net/ipv6").exists():
        raise LabError("the kernel has none, or was told to do without")
    return "there"


def _nfacct(namespace: Namespace) -> str:
    nfacct.create(namespace, "doctor")
    return "a counter was made"


# One rule for each match and target of kube-proxy's usual rules. They stay in the scratch namespace.
_RULES: Final = """*nat
:DOCTOR - [0:0]
-A PREROUTING -m comment --comment doctor -m addrtype --dst-type LOCAL -j DOCTOR
-A DOCTOR -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination {target}
-A DOCTOR -j MARK --set-xmark 0x4000/0x4000
-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE
COMMIT
*filter
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A INPUT -p tcp -j REJECT
COMMIT
"""
_RULE_MODULES: Final = (
    "xt_comment xt_addrtype xt_statistic xt_nat xt_mark xt_MASQUERADE xt_conntrack ipt_REJECT ip6t_REJECT"
)


def _backends() -> Iterator[Check]:
    for backend in Backend:
        tables = "nft_compat nft_chain_nat" if backend is Backend.NFT else "iptable_nat ip6table_nat"
        for family in Family:
            yield _check(
                f"iptables-{backend}, {family}",
                lambda backend=backend, family=family: _restore(backend, family),  # type: ignore[misc]
                f"modprobe -a {tables} {_RULE_MODULES}",
                necessary=backend is Backend.NFT and family is Family.IPV4,
            )


def _restore(backend: Backend, family: Family) -> str:
    target = "192.0.2.1:80" if family is Family.IPV4 else "[2001:db8::1]:80"
    namespace = Namespace.create()
    xtables = Xtables(namespace, backend)
    try:
        xtables.start_restore(family.version, _RULES.format(target=target)).finish()
    finally:
        xtables.close()
        namespace.close()
    return "rules like kube-proxy's were loaded"


def _behaviour(family: Family) -> Check:
    from lab.trial import probe

    # Only the IPv4 answer is what the first `lab run` needs.
    return _check(
        f"behaviour, {family}",
        lambda: asyncio.run(probe.ask(family)).words,
        "see the checks above; a kernel that is none of the known ones is worth a report",
        necessary=family is Family.IPV4,
    )
