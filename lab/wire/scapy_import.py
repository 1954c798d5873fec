# SPDX-License-Identifier: MIT
"""The import of scapy: late, without traces, and in the command's process no more than crafting needs."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from functools import cache
from io import BytesIO, StringIO
from types import ModuleType


@cache
def import_scapy() -> None:
    """Import scapy's layers of IP without the files that it would leave in the home.

    (``_probe_xdg_folder`` in scapy/main.py.)
    """
    places = {name: os.environ.get(name) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    os.environ.update(dict.fromkeys(places, "/dev/null/none"))  # where no folder can be made, scapy does without
    try:
        if "lab.__main__" in sys.modules:  # the process is the command's; in anybody else's scapy may be wanted whole
            _leave_out_what_crafting_needs_not()
        importlib.import_module("scapy.layers.inet6")
    finally:
        for name, value in places.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _leave_out_what_crafting_needs_not() -> None:
    """Keep scapy from reading lists of names, and this namespace's interfaces and routes: two fifths of its import.

    scapy/data.py reads the names of protocols, ports and makers of network cards, scapy/arch/linux and scapy/route.py
    the others. Crafting goes by numbers, and frames are sent by sockets of the lab's own.
    """
    _import_without_names()
    from scapy.config import conf

    conf.route_autoload = conf.route6_autoload = False
    importlib.import_module("scapy.interfaces")
    conf.ifaces.reload = conf.ifaces.load_confiface = lambda: None


def _import_without_names() -> None:
    """Import scapy.data so that every file is empty that it opens, and the list that it has of its own as well."""
    makers = sys.modules["scapy.libs.manuf"] = ModuleType("scapy.libs.manuf")
    vars(makers)["DATA"] = ""
    spec = importlib.util.find_spec("scapy.data")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = vars(sys.modules["scapy"])["data"] = importlib.util.module_from_spec(spec)
    vars(module)["open"] = lambda _path, mode, **_more: BytesIO() if "b" in mode else StringIO()
    said = logging.getLogger("scapy.loading")  # scapy 2.5: "Cannot read wireshark manuf database"
    said.setLevel(logging.ERROR)
    spec.loader.exec_module(module)
    said.setLevel(logging.NOTSET)
    del vars(module)["open"]
