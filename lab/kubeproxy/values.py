# SPDX-License-Identifier: MIT
"""The values of kube-proxy's settings, read from what an option, a YAML file or a test gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any, Final, TypeAlias

from lab.errors import misspelt
from lab.kubeproxy.durations import seconds_of
from lab.vocabulary import Family

#: How a network is written, as a cure.
A_NETWORK: Final = "write it as 10.0.0.0/24 or fd00::/64"

_TRUE: Final = {"true", "1", "t"}  # strconv.ParseBool, by which kube-proxy reads its flags
_FALSE: Final = {"false", "0", "f"}
_LONGEST: Final = 2_147_483  # seconds: INT_MAX jiffies at 1,000 a second (proc_dointvec_jiffies in kernel/sysctl.c)
_INTERFACE_LENGTH: Final = 15  # IFNAMSIZ less the closing zero (linux/if.h)


class BadValueError(ValueError):
    """A value that a setting cannot have.

    :param message: what is wrong; :param cure: what to write instead.
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure


#: Makes a setting's value of what an option, a YAML file or a test gives.
Read: TypeAlias = Callable[[object], Any]


def items(given: object) -> list[str]:
    """Return the items of a list, or of texts with commas."""
    texts = [text(one) for one in (given if isinstance(given, list | tuple) else [given])]
    return [item.strip() for text in texts for item in text.split(",") if item.strip()]


def text(given: object) -> str:
    """Return a text as it is.

    :raises BadValueError: it is none.
    """
    if not isinstance(given, str):
        raise BadValueError(f"must be text, not {given!r}", "put it in quotes")
    return given


def network(text: str) -> IPv4Network | IPv6Network:
    """Return a network of either family.

    :raises BadValueError: it is none.
    """
    try:
        wide = ip_network(text, strict=False)
        exact = ip_interface(text)
    except ValueError:
        raise BadValueError(f"{text!r} is no CIDR", A_NETWORK) from None
    if exact.ip != wide.network_address:
        raise BadValueError(f"{text!r} has bits set beyond its prefix", f"write {wide}")
    return wide


def cidrs(given: object) -> tuple[Any, ...]:
    """Return networks.

    :raises BadValueError: it is none.
    """
    return tuple(map(network, items(given)))


def cidr_a_family(given: object) -> tuple[Any, ...]:
    """Return networks, at most one of each family.

    :raises BadValueError: it is none.
    """
    found = cidrs(given)
    families = [Family.of(cidr) for cidr in found]
    for index, family in enumerate(families):
        if family in families[:index]:
            raise BadValueError(f"a second CIDR of {family}; kube-proxy takes one a family", "keep one")
    return found


def addresses(given: object) -> tuple[str, ...]:
    """Return IP addresses in their usual form.

    :raises BadValueError: it is none.
    """
    try:
        return tuple(str(ip_address(item)) for item in items(given))
    except ValueError as error:
        raise BadValueError(str(error), "write it as 10.0.0.1 or fd00::1") from None


def node_ports(given: object) -> tuple[str, ...]:
    """Return networks, or the word for the node's primary address alone.

    :raises BadValueError: it is none.
    """
    from lab.kubeproxy.options import PRIMARY

    ranges = items(given)
    if PRIMARY in ranges:
        if len(ranges) > 1:  # ValidateProxyNodePortAddresses, pkg/proxy/apis/config/validation
            raise BadValueError(f"{PRIMARY} and others", f"{PRIMARY} stands alone")
        return (PRIMARY,)
    return tuple(str(network(item)) for item in ranges)


def flag(given: object) -> bool:
    """Return a truth value, written as Go's programs take it.

    :raises BadValueError: it is none.
    """
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.lower() in _TRUE | _FALSE:
        return given.lower() in _TRUE
    raise BadValueError(f"must be true or false, not {given!r}")


def bit(given: object) -> int:
    """Return the number of a bit of the packet mark.

    :raises BadValueError: it is none.
    """
    number = int(given) if isinstance(given, str) and given.isdecimal() else given
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 31:
        raise BadValueError(f"must be a bit of the packet mark, 0 to 31, not {given!r}")
    return number


def time_out(given: object) -> str:
    """Return a duration as it was written.

    :raises BadValueError: it is none.
    """
    seconds = seconds_of(given) if isinstance(given, str) else None
    if seconds is None or seconds < 0:
        raise BadValueError(
            f"must be a duration, not {given!r}", "write it as 10m, 1h30m or 30s; 0s leaves the kernel's"
        )
    if seconds > _LONGEST:
        raise BadValueError(f"{given} is longer than kernels take", f"at most {_LONGEST}s, some 24 days")
    return str(given)


def detect_local(given: object) -> Any:  # noqa: ANN401 - imported late
    """Return a way of telling local pods.

    :raises BadValueError: it is none.
    """
    from lab.kubeproxy.options import DetectLocalMode

    if given not in list(DetectLocalMode):
        words = f"must be one of {', '.join(DetectLocalMode)}, not {given!r}"
        raise BadValueError(words, misspelt(str(given), DetectLocalMode))
    return DetectLocalMode(str(given))


def interface(given: object) -> str:
    """Return the name of an interface, or how one begins.

    :raises BadValueError: it is none.
    """
    name = text(given)
    if len(name.encode()) > _INTERFACE_LENGTH or any(one.isspace() or one in '/:"+*' for one in name):
        raise BadValueError(
            f"{name!r} is no name of an interface", f"at most {_INTERFACE_LENGTH} characters, such as cni0"
        )
    return name


def gates(given: object) -> tuple[tuple[str, bool], ...]:
    """Return feature gates by name, each on or off.

    :raises BadValueError: it is none.
    """
    if isinstance(given, Mapping):
        pairs = [(str(name), value) for name, value in given.items()]
    else:
        pairs = []
        for item in items(given):
            name, separator, value = item.partition("=")
            if not separator:
                raise BadValueError(f"{item!r} says neither true nor false", f"write {name}=true")
            pairs.append((name.strip(), value.strip()))
    read: dict[str, bool] = {}
    for name, value in pairs:
        try:
            read[name] = flag(value)
        except BadValueError as error:
            raise BadValueError(f"{name} {error.message}") from None
    return tuple(sorted(read.items()))


def spell(value: object) -> str:
    """Return a value as an option would say it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(f"{one[0]}={spell(one[1])}" if isinstance(one, tuple) else str(one) for one in value)
    return str(value)
