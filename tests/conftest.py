"""What the tests are run with: the project's own plugin, and pytest's for testing plugins."""

from __future__ import annotations

import gc
import os
import tarfile
from functools import cache
from pathlib import Path

import pytest

from tests.support import cover

NETWORK = "/proc/thread-self/ns/net"
pytest_plugins = ["pytester"]


def pytest_configure(config):
    cover.set_seed()  # before there are workers, which inherit it
    # Where workers collect, pytest-xdist 3.8 says of a mistyped name that no tests ran, and nothing else.
    for argument in config.args:
        place = argument.partition("::")[0]
        if not (config.invocation_params.dir / place).exists() and not config.getoption("pyargs"):
            raise pytest.UsageError(f"file or directory not found: {place}")
    # By Python's own 700 new objects a tenth of a run is searching what was imported and collected.
    gc.set_threshold(100_000)


def pytest_report_header():
    if cover.whole():
        return "cover: everything"
    return f"cover: {cover.SEED}={cover.set_seed()} repeats it, {cover.FULL}=1 tries everything"


def axes(item):
    """Return which value a test has on each axis: those of one `parametrize` belong together, as one row of it."""
    values = {name: id(value) for name, value in item.callspec.params.items()}
    rows = {}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if isinstance(mark.args[0], str) else ",".join(mark.args[0])
        rows[names] = tuple(values.pop(name.strip(), None) for name in names.split(","))
    return {**rows, **values}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Of a test with several parameters, take a cover; what was named by ``::`` is taken as it is."""
    if cover.whole() or any("::" in argument for argument in config.args):
        return
    functions = {}
    for item in items:
        functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for name, own in functions.items():
        numbers = cover.spread([axes(item) for item in own], of=name) if len(own) > 1 else (0,)
        kept |= {own[number] for number in numbers}
    if left_out := [item for item in items if item not in kept]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item in kept]


def pytest_terminal_summary(terminalreporter):
    """A quiet run has no header, and what failed wants to be repeated."""
    if terminalreporter.stats.keys() & {"failed", "error"} and not cover.whole():
        terminalreporter.write_line(f"repeat it with {cover.SEED}={cover.set_seed()}")


def pytest_collection_finish():
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def memory_of_its_own(tmp_path_factory):
    """What `lab run` keeps for `lab show` stays the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def stays_where_it_is():
    """A test that leaves root's pytest in another namespace would have every later one run there."""
    before = os.stat(NETWORK).st_ino
    yield
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"] or os.geteuid():
        assert os.stat(NETWORK).st_ino == before


class Dumps:
    """What real kube-proxies wrote: see kubeproxy/dumps.md.

    A name is ``VERSION/KIND``; of the kinds, ``iptables-v4`` is of one family, ``iptables-v4-dual`` and ``nft-v4``
    of a node of both.
    """

    _ADDRESSES = ("192.168.50.10", "172.16.9.10", "10.244.1.1")
    _IPV6_ADDRESSES = ("fd50::10", "fd51::10", "fd44:0:0:1::1")

    def __init__(self, directory):
        self._directory = directory
        with tarfile.open(Path(__file__).parent / "kubeproxy" / "dumps.tar.xz") as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(directory, filter="data")
            else:  # Python 3.11.3 and before, as in Debian 12
                archive.extractall(directory)

    def path(self, name):
        version, _, kind = name.partition("/")
        return self._directory / version / f"{'nft' if kind.startswith('nft') else kind}.txt"

    def text(self, name):
        return self.path(name).read_text()

    @cache  # noqa: B019 - there is one
    def _objects(self, *names):
        from lab.topology.reader import load_either

        given = [load_either(self._directory / name) for name in names]
        return tuple(one for each in given for one in each.services), tuple(
            one for each in given for one in each.endpoint_slices
        )

    def objects(self, name):
        """The Services and slices that were served."""
        version, _, kind = name.partition("/")
        minor = int(version.split(".")[1])
        if minor <= 17:
            return self._objects("objects-upto-v1.17.yaml")
        if minor == 18:
            return self._objects("objects.yaml", "objects-new-nospace.yaml")
        if kind.startswith("nft") and minor == 29:
            return self._objects("objects-nft-v1.29.yaml")
        if kind.startswith("nft") and minor == 30:
            return self._objects("objects.yaml", "objects-new-nolong.yaml")
        return self._objects("objects.yaml", "objects-new.yaml")

    def proxy(self, name, **changes):
        """The kube-proxy that wrote a dump, as the lab knows it."""
        from lab.kubeproxy import ProxyOptions
        from lab.rules.source import Proxy
        from lab.vocabulary import Backend, Family, ProxyMode

        version, _, kind = name.partition("/")
        minor = int(version.split(".")[1])
        dual = kind != "iptables-v4"
        gates = {"IPv6DualStack": True} if dual and 18 <= minor <= 20 else {}
        if version == "v1.22.17" and not dual:
            gates = {"IPv6DualStack": False}
        settings = {
            "family": Family.IPV6 if "v6" in kind else Family.IPV4,
            "version": version,
            "cluster_cidrs": ("10.244.0.0/16", "fd44::/16") if dual else ("10.244.0.0/16",),
            "service_cidrs": ("10.96.0.0/12", "fd96::/112", "fd97::/112"),
            "node_name": "worker-1",
            "node_zone": "zone-a",
            "node_addresses": (*self._ADDRESSES, *(self._IPV6_ADDRESSES if dual else ())),
            "feature_gates": tuple(gates.items()),
            **changes,
        }
        mode = ProxyMode.NFTABLES if kind.startswith("nft") else ProxyMode.IPTABLES
        return Proxy("worker-1", mode, Backend.NFT, ProxyOptions(**settings), *self.objects(name))


@pytest.fixture(scope="session")
def dumps(tmp_path_factory):
    return Dumps(tmp_path_factory.mktemp("dumps"))
