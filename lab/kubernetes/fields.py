# SPDX-License-Identifier: MIT
"""The types of Kubernetes objects' fields: addresses, names, ports, and what the API server refuses of them.

Source: kubernetes' ``pkg/apis/core/validation/validation.go`` and ``pkg/apis/discovery/validation/validation.go``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Location = tuple[str | int, ...]

_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"  # RFC 1123 label
SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")  # RFC 6335 section 5.1
_SPECIAL_IPV4 = {  # by leading bytes
    b"\0\0\0\0": "unspecified (0.0.0.0)",
    b"\x7f": "in the loopback range (127.0.0.0/8)",
    b"\xa9\xfe": "in the link-local range (169.254.0.0/16)",
    b"\xe0\0\0": "in the link-local multicast range (224.0.0.0/24)",
}
_SPECIAL_IPV6 = {
    ipaddress.IPv6Network("::/128"): "unspecified (::)",
    ipaddress.IPv6Network("::1/128"): "in the loopback range (::1/128)",
    ipaddress.IPv6Network("fe80::/10"): "in the link-local range (fe80::/10)",
    ipaddress.IPv6Network("ff02::/16"): "in the link-local multicast range (ff02::/16)",
}


def _ipv4_bytes(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET, text)  # ten times as fast as ipaddress, and as strict
    except (OSError, ValueError):
        return None


def _normal_ip(text: str) -> str:
    if _ipv4_bytes(text):
        return text
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError("must be an IP address") from None
    if address.scope_id or address.ipv4_mapped:
        raise ValueError("must be an IP address without a zone, and IPv4 as IPv4")
    return str(address)


def ordinary_ip(text: str) -> str:
    """Return an address in its usual form.

    :raises ValueError: it is none, or one that no endpoint may have.
    """
    packed = _ipv4_bytes(text)
    normal = text if packed else _normal_ip(text)
    if packed:
        reason = next((why for start, why in _SPECIAL_IPV4.items() if packed.startswith(start)), None)
    else:
        address = ipaddress.IPv6Address(normal)
        reason = next((why for network, why in _SPECIAL_IPV6.items() if address in network), None)
    if reason:
        raise ValueError(f"may not be {reason}")
    return normal


def _normal_cidr(text: str) -> str:
    try:
        address, length = text.strip().split("/")
        if not length.isdecimal():
            raise ValueError
        return str(ipaddress.ip_network((_normal_ip(address), int(length)), strict=False))
    except ValueError:
        raise ValueError("must be a CIDR such as 10.0.0.0/8 or fd00::/64") from None


def _source_range(text: str) -> str:
    """Keep a blank before a CIDR, which the API server lets pass, and on which some kube-proxies end."""
    return f"{' ' * text.startswith(' ')}{_normal_cidr(text)}"


def _cluster_ip(text: str) -> str:
    return text if text in {"", "None"} else _normal_ip(text)


def _target_port(value: int | str) -> int | str:
    if isinstance(value, str):
        if not _PORT_NAME.fullmatch(value):
            raise ValueError("must be a port number, or a name of a-z, 0-9 and '-', at most 15, with a letter")
    elif not 1 <= value <= 65535:
        raise ValueError("must be between 1 and 65535")
    return value


def is_ipv6(address: str) -> bool:
    """Return whether an address or CIDR that passed these models is an IPv6 one."""
    return ":" in address


Label = Annotated[str, StringConstraints(pattern=_LABEL, max_length=63)]
Subdomain = Annotated[str, StringConstraints(pattern=SUBDOMAIN, max_length=253)]
Port = Annotated[int, Field(ge=1, le=65535)]
OptionalPort = Annotated[int, Field(ge=0, le=65535)]
Ip = Annotated[str, AfterValidator(_normal_ip)]
OrdinaryIp = Annotated[str, AfterValidator(ordinary_ip)]
ClusterIp = Annotated[str, AfterValidator(_cluster_ip)]
SourceRange = Annotated[str, AfterValidator(_source_range)]
TargetPort = Annotated[int | str, AfterValidator(_target_port)]
Protocol = Literal["TCP", "UDP", "SCTP"]
IpFamily = Literal["IPv4", "IPv6"]
TrafficPolicy = Literal["Cluster", "Local"]
FromList = Strict(strict=False)  # a sequence comes as a list from YAML; its items stay strict


class KubernetesType(BaseModel):
    """Base: frozen, strict as the API server's decoder; :mod:`lab.kubernetes.parse` leaves unknown fields out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Refusals:
    """Collects what is wrong between fields, each with the path of the field to mend."""

    def __init__(self) -> None:
        self._found: list[InitErrorDetails] = []

    def add(self, location: Location, message: str, value: object = None) -> None:
        """Note what is wrong with a field."""
        error = PydanticCustomError("refused", "{message}", {"message": message})
        self._found.append(InitErrorDetails(type=error, loc=location, input=value))

    def raise_any(self, title: str) -> None:
        """Raise what was noted, if anything was.

        :raises pydantic.ValidationError: with an error for each.
        """
        if self._found:
            raise ValidationError.from_exception_data(title, self._found)
