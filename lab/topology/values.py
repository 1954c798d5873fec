# SPDX-License-Identifier: MIT
"""How addresses and networks are written in a topology file, and read."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import PlainValidator, WithJsonSchema

from lab.kubeproxy.values import A_NETWORK, BadValueError, network
from lab.kubernetes.errors import found
from lab.topology.keys import refused

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network


def _address(value: Any) -> IPAddress:  # noqa: ANN401 - anything may stand in a file
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    try:
        return ip_address(_plain(value))
    except ValueError:
        raise refused(f"{found(value)} is no IP address", "write it as 10.0.0.1 or fd00::1") from None


def _interface(value: Any) -> IPInterface:  # noqa: ANN401
    if isinstance(value, IPv4Interface | IPv6Interface):
        return value
    cure = "write it with its subnet's prefix length, as 10.0.0.1/24 or fd00::1/64"
    try:
        address, _, length = _plain(value).partition("/")
        if length.isdecimal():
            return ip_interface(f"{address}/{length}")
        message = f"{found(value)} has no prefix length" if not length else None
        ip_address(address)
    except ValueError:
        message = None
    raise refused(message or f"{found(value)} is no address with a prefix length", cure)


def _network(value: Any) -> IPNetwork:  # noqa: ANN401
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return network(_plain(value))
    except BadValueError as error:
        raise refused(error.message, error.cure) from None
    except ValueError:
        raise refused(f"{found(value)} is no CIDR", A_NETWORK) from None


def _plain(value: Any) -> str:  # noqa: ANN401
    """Refuse what :mod:`ipaddress` takes besides text: numbers, zones, and netmasks of any length."""
    if not isinstance(value, str) or len(value) > 60 or "%" in value:
        raise ValueError
    return value


def _destination(value: Any) -> IPNetwork | Literal["default"]:  # noqa: ANN401
    return "default" if value == "default" else _network(value)


TEXT: Final = {"type": "string"}
FileAddress = Annotated[IPAddress, PlainValidator(_address), WithJsonSchema(TEXT)]
FileInterface = Annotated[IPInterface, PlainValidator(_interface), WithJsonSchema(TEXT)]
FileNetwork = Annotated[IPNetwork, PlainValidator(_network), WithJsonSchema(TEXT)]
FileDestination = Annotated[IPNetwork | Literal["default"], PlainValidator(_destination), WithJsonSchema(TEXT)]
