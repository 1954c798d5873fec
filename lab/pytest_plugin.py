"""pytest's door to the lab: fixtures, markers and options for tests that run on the kernel in front of you.

A test of one's own, in any project that has this distribution installed::

    def test_reset(trial):
        assert trial("beyond-window").verdict.outcome == "reset"

    @pytest.mark.topology("kube-proxy", proxy_mode="nftables", family="ipv6")
    def test_rules(lab):
        assert "kube-proxy" in lab.run("node", "nft", "list", "tables")

``lab`` is a fresh running lab; ``trial`` tries cases, each in a lab of its own. The marker ``topology`` says
what to build, for a test, a class or a module. What it leaves open is as the ``--lab-...`` options say, then
as the topology itself does.

**Without root**, pytest's own process becomes root of a user namespace when the first test that needs a lab
is set up, and not before: it leaves the machine's network for good, and has a loopback and nothing else from
then on, in every later test. A process that runs threads cannot enter (unshare(2), EINVAL). xdist's workers
always run some, so xdist's controller enters before it makes them where the project's ``required_plugins`` (a
setting of pytest's) names kube-proxy-lab. ``unshare -Urn pytest`` decides it from outside.

A test whose need is missing is skipped, and the last lines of the run say which and why.

pytest loads this module in every run of everybody who has the distribution: importing it costs next to
nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from lab import features
from lab.errors import InputError, LabError, MachineError, MissingError, misspelt
from lab.words import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
    from enum import StrEnum

    from lab.campaign import ProxyChoice
    from lab.cases import Case
    from lab.fixes import Fix
    from lab.kubeproxy.settings import Settings
    from lab.result import Result
    from lab.topology.model import Topology
    from lab.trial import Setting
    from lab.under_test import LabUnderTest
    from lab.words import Behaviour

Word = TypeVar("Word", bound="StrEnum")

_MARKERS: Final = {
    "topology": "topology(reference, *, proxy_mode, proxy_version, backend, family, fix, service, kube_proxy_config,"
    " ...): what `lab` and `trial` build. The reference is a shipped topology's name, a file beside the test, YAML text"
    " or a Topology; without one, a trial's case plays in its own. The settings of kube-proxy are named as its flags,"
    " with underscores.",
    "kernel": "kernel: the test makes namespaces. Tests that use `lab` or `trial` have it by themselves.",
    "kernel_feature": "kernel_feature(name, ...): the test needs these modules or CONFIG_ options.",
    "needs_tool": "needs_tool(name, ...): the test needs these programs.",
    "needs_root": "needs_root: the test needs root of the machine; root of a user namespace will not do.",
}

#: The vocabulary of topology files and of the command: what each word means, and its values where they are few.
_WORDS: Final = {
    "proxy_mode": ("kube-proxy's mode", list(ProxyMode)),
    "proxy_version": ("whose rules, such as v1.14, v1.33.6 or v1.33.6-gke.1", None),
    "backend": ("in iptables mode, which program loads the rules", list(Backend)),
    "family": ("the address family", list(Family)),
    "fix": ("the change to the nodes", None),
    "service": ("which Service is asked, instead of the first: [namespace/]name[:port]", None),
    "kube_proxy_config": ("kube-proxy's own file, a KubeProxyConfiguration", None),
}

_LIMIT: Final = 1800.0  # seconds for a guest
_NAMESPACE_FIXTURE: Final = "_lab_namespace"
_SKIPPED: Final = "not run by the lab: "  # marks our skips among all others; survives xdist's serialising

_ENTERED: Final = pytest.StashKey[bool]()  # of the session's config: in a user namespace of our own
_BEHAVIOURS: Final = pytest.StashKey["dict[Family, Behaviour]"]()
_KEPT: Final = pytest.StashKey["list[tuple[str, LabUnderTest]]"]()
_LABS: Final = pytest.StashKey["list[LabUnderTest]"]()  # of an item: the labs that its evidence is in
_FAILED: Final = pytest.StashKey[bool]()


class TrialRunner:
    """What the fixture ``trial`` gives: call it with a case, and it returns the result.

    The last trial's lab lives until the test's end, for a look at it where the test fails.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._labs: list[LabUnderTest] = []

    def __call__(
        self,
        case: str | Case,
        *,
        fix: str | Fix | None = None,
        proxy_mode: str | None = None,
        proxy_version: str | None = None,
        backend: str | None = None,
        family: str | None = None,
        service: str | None = None,
        kube_proxy_config: str | Path | None = None,
        **settings: object,
    ) -> Result:
        """Try a case in a fresh lab; what is not said here is as the marker ``topology`` says.

        Where no marker names a topology, the case plays in its own.

        :param case: a name from ``lab list``, or a case of one's own.
        :param fix: likewise; the node as kube-proxy leaves it where nobody says.
        :param service: which is asked, instead of the first; the result's trial names it where there are several.
        :param kube_proxy_config: a file beside the test.
        :param settings: of kube-proxy, named as its flags: ``masquerade_all=True``, ``detect_local_mode="NodeCIDR"``.
        :raises InputError: there is no such case, fix, mode, ..., or the topology cannot play the case; says why.
        :raises LabError: the trial could not be run; says why.
        """
        from lab import cases
        from lab.campaign import select
        from lab.trial import HeldUpError, in_doubt, say_again

        said = {
            "fix": fix,
            "proxy_mode": proxy_mode,
            "proxy_version": proxy_version,
            "backend": backend,
            "family": family,
            "service": service,
            "kube_proxy_config": kube_proxy_config,
            **settings,
        }
        words = _words(self._item) | {word: value for word, value in said.items() if value is not None}
        chosen = cases.find(case) if isinstance(case, str) else case
        place = words["topology"]
        topology = None if place is None else _topology(place, self._item.path.parent)
        asked = _choice(Family, words, "family") or Family.IPV4
        proxy, rest = _proxy(words), _settings(words, self._item.path.parent)
        [setting] = select([chosen], [_fix(words)], topology, asked, proxy, _service(words), settings=rest).settings
        with _missing_is_skipped():
            behaviour = _behaviour(self._item.config, setting.family)
            try:
                result = self._try(setting, behaviour)
            except HeldUpError as error:
                say_again(setting, str(error))
            else:
                if not (held_up := in_doubt(result)):
                    return result
                say_again(setting, held_up)
            return self._try(setting, behaviour)

    def _try(self, setting: Setting, behaviour: Behaviour) -> Result:
        self.close()
        lab = _build(self._item, setting.topology, setting.family, setting.fix, setting.service)
        self._labs.append(lab)
        return lab.try_setting(setting, behaviour)

    def close(self) -> None:
        """End the last trial's lab."""
        for lab in self._labs:
            _end(self._item, lab)
        self._labs.clear()


# --- fixtures -------------------------------------------------------------------------------------


@pytest.fixture(scope="session", name=_NAMESPACE_FIXTURE)
def _namespace_fixture(pytestconfig: pytest.Config) -> None:
    with _missing_is_skipped():
        _enter(pytestconfig)


@pytest.fixture
def lab(request: pytest.FixtureRequest, _lab_namespace: None) -> Iterator[LabUnderTest]:
    """A fresh running lab: of the topology that the marker ``topology`` names, or of kube-proxy.yaml."""
    item = request.node
    try:
        wanted = _understood(_words(item), item.path.parent)
        with _missing_is_skipped():
            running = _build(item, *wanted)
    except LabError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    yield running
    _end(item, running)


@pytest.fixture
def trial(request: pytest.FixtureRequest, _lab_namespace: None) -> Iterator[TrialRunner]:
    """Tries a case in a lab of its own: ``trial("beyond-window", fix="none").verdict.outcome == "reset"``."""
    runner = TrialRunner(request.node)
    yield runner
    runner.close()


def _build(item: pytest.Item, topology: Topology, family: Family | None, fix: Fix, service: str | None) -> LabUnderTest:
    from lab.under_test import LabUnderTest

    built = LabUnderTest(topology, family, fix, service)
    item.stash.setdefault(_LABS, []).append(built)
    return built


def _end(item: pytest.Item, running: LabUnderTest) -> None:
    item.stash[_LABS].remove(running)
    if item.config.getoption("lab_keep") and item.stash.get(_FAILED, False):
        item.config.stash.setdefault(_KEPT, []).append((item.nodeid, running))
    else:
        running.close()


def _behaviour(config: pytest.Config, family: Family) -> Behaviour:
    """Ask the kernel once a session and family."""
    import asyncio

    from lab.behaviour import ask

    known = config.stash.setdefault(_BEHAVIOURS, {})
    if family not in known:
        known[family] = asyncio.run(ask(family))
    return known[family]


@contextlib.contextmanager
def _missing_is_skipped() -> Iterator[None]:
    try:
        yield
    except MissingError as error:
        pytest.skip(f"{_SKIPPED}{error}")
    except (MachineError, OSError) as error:
        known = MachineError.of(error) if isinstance(error, OSError) else error
        if known is None:
            raise
        pytest.fail(str(known), pytrace=False)  # nothing in the test or the lab led there


# --- what to build --------------------------------------------------------------------------------


def _words(item: pytest.Item) -> dict[str, object]:
    """Collect what the options and the markers say, the nearest marker last."""
    words = {"topology": None} | _options(item.config, (*_WORDS, *_setting_words()))
    for marker in reversed(list(item.iter_markers("topology"))):
        words |= marker.kwargs
        if marker.args:
            words["topology"] = marker.args[0]
    return words


def _options(config: pytest.Config, words: Iterable[str]) -> dict[str, object]:
    """Return what the options say; a file is where pytest was started."""
    said: dict[str, object] = {word: config.getoption(f"lab_{word}") for word in words}
    if file := said.get("kube_proxy_config"):
        said["kube_proxy_config"] = config.invocation_params.dir / str(file)
    return said


def _understood(words: Mapping[str, object], directory: Path) -> tuple[Topology, Family | None, Fix, str | None]:
    """Turn words into what a lab is built from.

    :raises InputError: for the first word that means nothing.
    """
    from lab.trial import with_proxy

    topology = _topology(words["topology"] or "kube-proxy", directory)
    topology = with_proxy(topology, *_proxy(words), _settings(words, directory))
    return topology, _choice(Family, words, "family"), _fix(words), _service(words)


def _proxy(words: Mapping[str, object]) -> ProxyChoice:
    from lab.kubeproxy.releases import find_release

    version = words["proxy_version"]
    name = None if version is None else find_release(str(version)).name
    return _choice(ProxyMode, words, "proxy_mode"), name, _choice(Backend, words, "backend")


def _setting_words() -> Iterable[str]:
    """Return the names of the settings that may be said of a topology."""
    from lab.kubeproxy.settings import SETTINGS, TOPOLOGYS

    return [SETTINGS[field].word for field in TOPOLOGYS]


def _settings(words: Mapping[str, object], directory: Path) -> Settings:
    """Return what is said of the nodes' kube-proxy.

    :raises InputError: a word is none, or its value cannot be.
    """
    from lab.kubeproxy.configuration import read_configuration
    from lab.kubeproxy.settings import NOTHING_SAID, find_word, from_words

    others = {*_WORDS, "topology"}
    said = {find_word(word).field: value for word, value in words.items() if word not in others}
    file = words["kube_proxy_config"]
    read = NOTHING_SAID if file is None else read_configuration(str(directory / str(file)))
    return read + from_words(said, lambda row: row.word)


def _fix(words: Mapping[str, object]) -> Fix:
    from lab import fixes

    fix = words["fix"] or fixes.NONE
    return fix if isinstance(fix, fixes.Fix) else fixes.find(str(fix))


def _service(words: Mapping[str, object]) -> str | None:
    return None if words["service"] is None else str(words["service"])


def _choice(kind: type[Word], words: Mapping[str, object], word: str) -> Word | None:
    value = words[word]
    if value is None or value in list(kind):
        return None if value is None else kind(str(value))
    raise InputError(f"there is no {word.replace('_', ' ')} {value!r}", cure=f"one of: {', '.join(kind)}")


def _topology(reference: object, directory: Path) -> Topology:
    from lab.topology.model import Topology

    if isinstance(reference, Topology):
        return reference
    if isinstance(reference, str | Path):
        return _read(reference, directory)
    raise InputError(f"no topology: {reference!r}", cure="give a name, a file, YAML text or a Topology")


@cache
def _read(reference: str | Path, directory: Path) -> Topology:
    from lab.topology.reader import load, parse, shipped

    if isinstance(reference, str) and "\n" in reference:
        return parse(reference)
    path = directory / reference
    if reference in dict(shipped()) or not (path.exists() or path.suffix):
        return load(str(reference))
    return load(path)


# --- what a test needs ----------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check the markers' arguments, and mark whatever uses the fixtures."""
    for item in items:
        # Other projects may have a fixture `lab` and a marker `topology` of their own: only ours need this.
        if _NAMESPACE_FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker("kernel")
            for marker in item.iter_markers("topology"):
                _check(item, marker, len(marker.args) <= 1, (*_WORDS, *_setting_words()))
        for marker in item.iter_markers("needs_tool"):
            _check(item, marker, bool(marker.args))
        for marker in item.iter_markers("kernel_feature"):
            known = (name in features.MODULES or name.startswith("CONFIG_") for name in marker.args)
            _check(item, marker, bool(marker.args) and all(known))


def _check(item: pytest.Item, marker: pytest.Mark, good: bool, words: Collection[str] = ()) -> None:
    """Refuse a marker whose positional arguments are not good, or that has keywords besides ``words``."""
    unknown = [word for word in marker.kwargs if word not in words]
    if good and not unknown:
        return
    if good and words:
        raise pytest.UsageError(
            f"{item.nodeid}: {marker.name}({unknown[0]}={marker.kwargs[unknown[0]]!r}): there is no word"
            f" {unknown[0]!r} ({_meant(unknown[0], words)})"
        )
    given = [repr(value) for value in marker.args]
    given += [f"{word}={value!r}" for word, value in marker.kwargs.items()]
    modules = f" Modules: {', '.join(features.MODULES)}." if marker.name == "kernel_feature" else ""
    raise pytest.UsageError(
        f"{item.nodeid}: {marker.name}({', '.join(given)}) cannot be. {_MARKERS[marker.name]}{modules}"
    )


def _meant(word: str, words: Collection[str]) -> str:
    """Say which word was probably meant, and which there are."""
    known = f"known: {', '.join(words)}"
    likely = misspelt(word, words)
    return f"{likely} {known}" if likely else known


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tool, kernel feature or right is missing; enter a user namespace if it needs one."""
    with _missing_is_skipped():
        if item.get_closest_marker("needs_root") and not _is_root():
            raise MissingError("needs root of the machine", "run it with sudo")
        for marker in item.iter_markers("needs_tool"):
            from lab.netns.program import find

            for name in marker.args:
                find(name)
        for marker in item.iter_markers("kernel_feature"):
            for name in marker.args:
                features.require(name)
        if item.get_closest_marker("kernel"):
            _enter(item.config)


def _is_root() -> bool:
    # user_namespaces(7): only the initial user namespace maps every number to itself.
    mapped = Path("/proc/self/uid_map").read_text().split()
    return os.geteuid() == 0 and mapped == ["0", "0", "4294967295"]


# --- without root ---------------------------------------------------------------------------------


def _enter(config: pytest.Config) -> None:
    """Become able to make namespaces; the process stays where it is if it may already, or may not at all.

    :raises MissingError: see :func:`lab.netns.userns.enter`.
    """
    import getpass

    from lab.netns import Namespace, RouteSocket, userns
    from lab.netns.rtnetlink import LOOPBACK_INDEX, link_up

    if userns.privileged():
        return
    _try_in_child(userns.enter)
    # Where no variable names the user, getpass (and so tmp_path) goes by the number, and that will be 0.
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"  # as tmp_path calls him
    os.environ.setdefault("LOGNAME", name)
    userns.enter()
    config.stash[_ENTERED] = True
    home = Namespace.open("/proc/thread-self/ns/net")
    routes = RouteSocket(home)
    routes.apply([link_up(LOOPBACK_INDEX, "lo")])
    routes.close()
    home.close()


def _try_in_child(enter: Callable[[], None]) -> None:
    """Enter in a child first: some systems let a process in and take its rights away there, for good."""
    if len(os.listdir("/proc/self/task")) > 1:
        return  # the kernel refuses at once, and nothing has changed
    answer = os.memfd_create("answer")
    try:
        child = os.fork()
        if child == 0:
            try:
                enter()
            except MissingError as error:
                os.write(answer, f"{error.what}\n{error.cure}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        told = os.pread(answer, 4096, 0).decode()
    finally:
        os.close(answer)
    if told:
        raise MissingError(*told.split("\n", 1))


# --- options and the run --------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--lab-...`` options."""
    from lab.kubeproxy.settings import SETTINGS, TOPOLOGYS

    group = parser.getgroup("lab", "kube-proxy-lab (for what a test's marker `topology` leaves open)")
    for word, (meaning, choices) in _WORDS.items():
        group.addoption(f"--lab-{word.replace('_', '-')}", choices=choices, help=meaning)
    for row in (SETTINGS[field] for field in TOPOLOGYS):
        group.addoption(f"--lab-{row.option}", metavar=row.metavar or "true|false", help=row.what)
    group.addoption(
        "--lab-keep",
        action="store_true",
        help="failing tests' labs stay until Enter is pressed after the run",
    )
    group.addoption(
        "--lab-shell-on-failure", action="store_true", help="open a shell on the lab's node when a test fails"
    )
    group.addoption(
        "--kernels",
        metavar="NAMES",
        help="run the tests in a guest for each of these kernels, such as 5.10,6.1,newest (see `lab kernels list`)",
    )
    group.addoption(
        "--kernels-limit", type=float, metavar="SECONDS", help=f"how long each of these guests may take ({_LIMIT:.0f})"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, check the options, and enter the user namespace where xdist's workers cannot."""
    for description in _MARKERS.values():
        config.addinivalue_line("markers", description)
    try:
        _check_options(config)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    if config.getoption("kernels"):
        _send_elsewhere(config)
        return
    if config.getoption("kernels_limit") is not None:
        raise pytest.UsageError("--kernels-limit is for guests: give --kernels too, or leave it out")
    if config.getoption("dist", "no") == "no":
        return
    if config.getoption("lab_keep") or config.getoption("lab_shell_on_failure"):
        raise pytest.UsageError("--lab-keep and --lab-shell-on-failure want one process: leave out -n")
    if _is_required(config):
        with contextlib.suppress(MissingError):  # the workers will say so for each test
            _enter(config)


def _check_options(config: pytest.Config) -> None:
    version, fix = config.getoption("lab_proxy_version"), config.getoption("lab_fix")
    words = _options(config, ("kube_proxy_config", *_setting_words()))
    if any(value is not None for value in words.values()):
        _settings(words, config.invocation_params.dir)
    if version is not None:
        from lab.kubeproxy.releases import find_release

        find_release(version)
    if fix is not None:
        from lab.fixes import find

        find(fix)


def _send_elsewhere(config: pytest.Config) -> None:
    from lab.kernels.suite import Elsewhere

    here = (
        config.getoption("dist", "no") != "no",
        config.getoption("lab_keep"),
        config.getoption("lab_shell_on_failure"),
    )
    if any(here):
        raise pytest.UsageError("--kernels runs the tests elsewhere: leave out -n, --lab-keep, --lab-shell-on-failure")
    names = [name.strip() for name in config.getoption("kernels").split(",")]
    config.pluginmanager.register(
        Elsewhere(config, list(dict.fromkeys(names)), config.getoption("kernels_limit") or _LIMIT)
    )


def _is_required(config: pytest.Config) -> bool:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    required = (Requirement(line).name for line in config.getini("required_plugins"))
    return any(canonicalize_name(name) == "kube-proxy-lab" for name in required)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the evidence into the report of a failure."""
    report = yield
    if report.failed and call.when != "teardown":
        item.stash[_FAILED] = True
        for running in item.stash.get(_LABS, []):
            report.sections += _evidence(running)
    return report


def _evidence(running: LabUnderTest) -> Iterator[tuple[str, str]]:
    yield "lab: hosts", running.describe()
    try:
        yield "lab: rules", running.rules()
    except LabError as error:
        yield "lab: rules", str(error)
    if running.timeline is not None:
        from lab.report.terminal import timeline_text

        yield "lab: timeline", timeline_text(running.timeline)


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, report: pytest.CollectReport | pytest.TestReport
) -> None:
    """Open a shell in the labs of a test that failed, if asked to."""
    if node.config.getoption("lab_shell_on_failure"):
        for running in node.stash.get(_LABS, []):
            with _standard_streams(node.config):
                print(f"\n{node.nodeid}\n{report.longreprtext}")
                running.shell()


@contextlib.contextmanager
def _standard_streams(config: pytest.Config) -> Iterator[None]:
    """Give standard input and output back to the user, as pytest's own debugger does."""
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.suspend(in_=True)
    try:
        yield
    finally:
        capture.resume()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud which tests were not run for want of something."""
    tests_by_reason: dict[str, list[str]] = {}
    for report in terminalreporter.getreports("skipped"):
        _path, _line, reason = report.longrepr
        _before, ours, missing = reason.partition(_SKIPPED)
        if ours:
            tests_by_reason.setdefault(missing, []).append(report.nodeid)
    if tests_by_reason:
        count = sum(len(tests) for tests in tests_by_reason.values())
        tests_were = "test was" if count == 1 else "tests were"
        terminalreporter.section(f"{count} {tests_were} not run", yellow=True, bold=True)
        for reason, tests in tests_by_reason.items():
            terminalreporter.line(reason, yellow=True)
            for test in tests:
                terminalreporter.line(f"    {test}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Show the ways into the labs that were kept, and end them when the user has seen enough."""
    kept = config.stash.get(_KEPT, [])
    if not kept:
        return
    with _standard_streams(config), contextlib.suppress(KeyboardInterrupt):
        for test, running in kept:
            print(f"\nthe lab of {test} stands; enter a host by")
            print("\n".join(running.ways_in(from_outside=config.stash.get(_ENTERED, False))))
        print("\npress Enter to end", "it" if len(kept) == 1 else "them", flush=True)
        sys.stdin.readline()
    for _test, running in kept:
        running.close()
