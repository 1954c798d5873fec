# SPDX-License-Identifier: MIT
"""Which package brings what is missing, in the words of the distribution at hand."""

from __future__ import annotations

import platform
from enum import StrEnum
from typing import Final


class Manager(StrEnum):
    """A distribution's package manager: its command, and how it leaves out what is only recommended."""

    APT = "apt"
    DNF = "dnf"
    APK = "apk"
    PACMAN = "pacman"
    ZYPPER = "zypper"

    @property
    def install(self) -> str:
        """The command that installs."""
        return _INSTALL[self][0]

    @property
    def install_no_more(self) -> str:
        """The command that installs, and nothing that is only recommended."""
        return _INSTALL[self][1]


_INSTALL: Final = {
    Manager.APT: ("apt install", "apt-get install --no-install-recommends"),
    Manager.DNF: ("dnf install", "dnf install --setopt=install_weak_deps=False"),
    Manager.APK: ("apk add", "apk add"),
    Manager.PACMAN: ("pacman -S", "pacman -S"),
    Manager.ZYPPER: ("zypper install", "zypper install --no-recommends"),
}

#: By ID and ID_LIKE of os-release(5); whoever names none of these has another, or none.
_MANAGERS: Final = {
    "debian": Manager.APT,
    "ubuntu": Manager.APT,
    "fedora": Manager.DNF,
    "rhel": Manager.DNF,
    "centos": Manager.DNF,
    "alpine": Manager.APK,
    "arch": Manager.PACMAN,
    "suse": Manager.ZYPPER,
    "opensuse": Manager.ZYPPER,
}

# None: that distribution has none, as far as is known.
_NFT: Final = ("iptables", "iptables-nft", "iptables", "iptables", "iptables")
_LEGACY: Final = ("iptables", "iptables-legacy", "iptables-legacy", "iptables", "iptables")
_BY_PROGRAM: Final[dict[str, tuple[str | None, ...]]] = {
    "iptables-nft-restore": _NFT,
    "iptables-nft-save": _NFT,
    "ip6tables-nft-restore": _NFT,
    "ip6tables-nft-save": _NFT,
    "iptables-legacy-restore": _LEGACY,
    "iptables-legacy-save": _LEGACY,
    "ip6tables-legacy-restore": _LEGACY,
    "ip6tables-legacy-save": _LEGACY,
    "libnftables.so.1": ("libnftables1", "nftables", "nftables", "nftables", "libnftables1"),
    "nft": ("nftables",) * 5,
    "ip": ("iproute2", "iproute", "iproute2", "iproute2", "iproute2"),
    "tc": ("iproute2", "iproute-tc", "iproute2-tc", "iproute2", "iproute2"),
    "conntrack": ("conntrack", "conntrack-tools", "conntrack-tools", "conntrack-tools", "conntrack-tools"),
    "nginx": ("nginx",) * 5,
    "curl": ("curl",) * 5,
    "mount": ("mount", "util-linux", "mount", "util-linux", "util-linux"),
    "setpriv": ("util-linux", "util-linux", "setpriv", "util-linux", "util-linux"),
    "unshare": ("util-linux", "util-linux", "util-linux-misc", "util-linux", "util-linux"),
    # Those with which guests are made and booted.
    "apt-get": ("apt", "apt", None, None, None),
    "busybox": ("busybox-static", "busybox", "busybox-static", "busybox", "busybox-static"),
    "cpio": ("cpio",) * 5,
    "depmod": ("kmod",) * 5,
    "dpkg-deb": ("dpkg",) * 5,
    "mksquashfs": ("squashfs-tools", "squashfs-tools", "squashfs-tools", "squashfs-tools", "squashfs"),
    "mmdebstrap": ("mmdebstrap", "mmdebstrap", None, None, None),
    "newuidmap": ("uidmap", "shadow-utils", "shadow-uidmap", "shadow", "shadow"),
    "qemu-system-x86_64": ("qemu-system-x86", "qemu-system-x86", "qemu-system-x86_64", "qemu-system-x86", "qemu-x86"),
    "sqfstar": ("squashfs-tools", "squashfs-tools", "squashfs-tools", "squashfs-tools", "squashfs"),
    "unsquashfs": ("squashfs-tools", "squashfs-tools", "squashfs-tools", "squashfs-tools", "squashfs"),
    "zstd": ("zstd",) * 5,
    "the keyring of Debian's archive": (
        "debian-archive-keyring", "debian-keyring", "debian-archive-keyring", "debian-archive-keyring", None,
    ),
}  # fmt: skip


def is_known(name: str) -> bool:
    """Return whether it is something that the lab itself may need, so that its package is known."""
    return name in _BY_PROGRAM


def package(name: str, manager: Manager = Manager.APT) -> str | None:
    """Return the package that brings a program or library; None where that distribution has none."""
    return _BY_PROGRAM[name][list(Manager).index(manager)]


def manager_here() -> Manager | None:
    """Return the package manager of this machine's distribution, or of one that it says it is like."""
    try:
        said = platform.freedesktop_os_release()
    except OSError:  # a system without the file
        return None
    names = [said.get("ID", ""), *said.get("ID_LIKE", "").split()]
    return next((_MANAGERS[name] for name in names if name in _MANAGERS), None)


def cure(*names: str, no_more: bool = False) -> str:
    """Return the command that brings programs or libraries here; in words where the distribution is not known.

    :param no_more: leave out what is only recommended beside them.
    """
    manager = manager_here()
    if manager is None:
        debian = " ".join(sorted({package(name) or name for name in names}))
        what = "package of it" if len(names) == 1 else "packages of them"
        return f"install your distribution's {what} (Debian's: {debian})"
    had = sorted({found for name in names if (found := package(name, manager))})
    lacking = [name for name in names if package(name, manager) is None]
    parts = [f"{manager.install_no_more if no_more else manager.install} {' '.join(had)}"] if had else []
    parts += [f"{manager} has none that brings {', '.join(lacking)}, as far as is known"] if lacking else []
    return "; ".join(parts)
