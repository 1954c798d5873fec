# SPDX-License-Identifier: MIT
"""What this machine has and lacks for a lab, found by asking; and whether it is itself a node with the bug.

The machine is only read. Kernel features are tried in a scratch namespace, as a lab would use them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.doctor.checks import Check, State, check
from lab.doctor.exposure import LIBERAL, Exposure, expose
from lab.doctor.features import backends, features
from lab.errors import LabError, MissingError, raise_if_exhausted
from lab.kernels import programs
from lab.netns import userns
from lab.netns.features import require
from lab.netns.program import find
from lab.vocabulary import Family
from lab.wire import hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
        return all(one.state is State.OK for one in self.checks if one.necessary)


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
        checks += [*features(), *backends(), *(_behaviour(family) for family in Family)]
    checks += [*_some_cases(), _other_kernels()]
    # The modules that reading rules may ask for are loaded by now.
    exposure, conclusion = expose() if is_privileged else (Exposure.UNKNOWN, _for_root(sysctls[LIBERAL]))
    return Diagnosis(tuple(checks), sysctls, exposure, conclusion)


def lines(diagnosis: Diagnosis, *, every: bool) -> Iterator[str]:
    """Return the lines of a diagnosis, for a terminal: the answer, then whether a lab can run, then what is not well.

    :param every: also what is well, and the sysctls.
    """
    yield f"Is this machine affected? {diagnosis.conclusion}"
    good = sum(one.state is State.OK for one in diagnosis.checks)
    can = "can" if diagnosis.ready else "cannot"
    yield f"A lab {can} run here: {good} of {len(diagnosis.checks)} checks are well."
    shown = [one for one in diagnosis.checks if every or one.state is not State.OK]
    if every and shown:
        yield ""
    width = max((len(one.name) for one in shown), default=0)
    for one in shown:
        cure = f" ({one.cure})" if one.cure else ""
        yield f"{one.state:8} {one.name:{width}}  {one.detail}{cure}"
    if not every:
        yield "`lab doctor --all` lists every check, and the sysctls that matter."
        return
    yield ""
    width = max(map(len, diagnosis.sysctls))
    for name, value in diagnosis.sysctls.items():
        yield f"{name:{width}}  {'-' if value is None else value}"


def _for_root(liberal: str | None) -> str:
    return f"Unknown: only root can read its rules: `sudo lab doctor`. {LIBERAL} is {liberal or 'unknown'}."


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
        yield check(name, lambda name=name: _version(name), necessary=necessary)  # type: ignore[misc]


def _version(name: str) -> str:
    path = find(name)
    asked = subprocess.run([path, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise LabError(f"{path} -V: {asked.stderr.strip()}")
    return f"{path}: {asked.stdout.splitlines()[0]}"


def _some_cases() -> Iterator[Check]:
    """Look for what only some cases of the catalogue need; those are left out without it, aloud."""
    yield check("for races", lambda: _built_in(hold.NEEDS), necessary=False)
    yield check("for load", lambda: _built_in(("sch_htb", "nft_numgen")), necessary=False)
    for name in ("nginx", "curl", "tc"):
        yield check(f"for load: {name}", lambda name=name: find(name), necessary=False)  # type: ignore[misc]


def _built_in(modules: Sequence[str]) -> str:
    for module in modules:
        require(module)
    return f"nothing says that the kernel lacks {', '.join(modules)}"


def _other_kernels() -> Check:
    def ask() -> str:
        programs.require()
        return "guests can be made and booted"

    return check("for other kernels", ask, necessary=False)


def _behaviour(family: Family) -> Check:
    from lab.trial import probe

    # Only the IPv4 answer is what the first `lab run` needs.
    return check(
        f"behaviour, {family}",
        lambda: asyncio.run(probe.ask(family)).words,
        "see the checks above; a kernel that is none of the known ones is worth a report",
        necessary=family is Family.IPV4,
    )
