# SPDX-License-Identifier: MIT
"""Debian's archive: which kernels it has now, and fetching their packages.

apt does the work, by a configuration, lists and a cache of its own in the lab's cache: the system's sources and lists
stay as they are, and no root is needed. What is fetched is what the archive's signature vouches for: apt verifies the
release file by the system's Debian keyring, that file has the lists' checksums, and the lists have the packages'.

The small kernels, made for clouds, are taken: they have all of netfilter, and few drivers.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.errors import LabError, MissingError
from lab.kernels.cache import Cache, say
from lab.kernels.kernel import order, series, upstream
from lab.kernels.programs import call, last_words, require
from lab.netns import packages
from lab.netns.program import find

_HELPER: Final = "/usr/lib/apt/apt-helper"
_DEFAULT_MIRROR: Final = "http://deb.debian.org/debian"

#: Where kernels are, by the mirror's directory. A suite that the mirror no longer has is left out, and said.
SUITES: Final = (
    ("security", "bullseye-security"),
    ("security", "bookworm-security"),
    ("security", "trixie-security"),
    ("debian", "bookworm"),
    ("debian", "bookworm-backports"),
    ("debian", "trixie"),
    ("debian", "trixie-backports"),
    ("debian", "sid"),
    ("debian", "experimental"),
)

_RELEASE: Final = r"[0-9][\w.+~-]*-cloud-amd64"
_REPOSITORY: Final = re.compile(r"^'(\S+)/dists/", re.MULTILINE)
_WANTED: Final = re.compile(rf"linux-(?:image|binary|modules|base)-{_RELEASE}")


@dataclass(frozen=True)
class Package:
    """One Debian package.

    :param size: bytes.
    :param sha256: as the signed lists have it.
    """

    name: str
    version: str
    uri: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Candidate:
    """A kernel that the archive has.

    :param release: what ``uname -r`` will say.
    :param version: Debian's, such as ``6.1.192-2``.
    """

    release: str
    version: str
    suite: str
    packages: tuple[Package, ...]

    @property
    def series(self) -> str:
        """The first two numbers of the version."""
        return series(self.version)

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(package.size for package in self.packages)

    @property
    def title(self) -> str:
        """What to call it to people."""
        return f"Linux {upstream(self.version)} ({self.release}, from {self.suite})"


@dataclass(frozen=True)
class Source:
    """One line of apt's sources: a suite at a mirror.

    :param options: in apt's own words, such as ``signed-by=FILE`` (sources.list(5)).
    """

    uri: str
    suite: str
    options: str

    @property
    def line(self) -> str:
        """As sources.list has it."""
        return f"deb [arch=amd64 {self.options}] {self.uri} {self.suite} main"


def keyring() -> Path:
    """Return the system's keyring of Debian's archive.

    :raises MissingError: the system has none.
    """
    for suffix in ("gpg", "pgp"):
        path = Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}")
        if path.exists():
            return path
    raise MissingError("no keyring of Debian's archive", packages.cure("the keyring of Debian's archive"))


def mirrors() -> tuple[str, str]:
    """Return the mirrors of Debian and of its security updates: the system's own, where it has them."""
    # Nothing is fetched by that, and it answers where no lists were ever fetched.
    uris = _REPOSITORY.findall(call(["apt-get", "--print-uris", "update"], "ask apt for its mirrors"))
    main = next((uri for uri in uris if uri.endswith("/debian")), _DEFAULT_MIRROR)
    security = next((uri for uri in uris if uri.endswith("/debian-security")), f"{_DEFAULT_MIRROR}-security")
    return main, security


def sources() -> tuple[Source, ...]:
    """Return where kernels are looked for."""
    main, security = mirrors()
    options = f"signed-by={keyring()}"
    return tuple(Source(security if place == "security" else main, suite, options) for place, suite in SUITES)


def look(cache: Cache, where: Iterable[Source]) -> tuple[list[Candidate], list[str]]:
    """Fetch the lists anew (what has not changed is not fetched again) and return the kernels in them.

    :returns: the kernels, the newest first; and a line for each thing that went wrong. Where new lists cannot be had,
        old ones do.
    """
    require(["apt-get"])
    with cache.locked("apt"):
        configuration = _configure(cache, where)
        option = f"--config-file={configuration}"
        done = subprocess.run(
            [find("apt-get"), option, "-q", "update"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        listed = call(
            ["apt-get", option, "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(FILENAME)",
             "Identifier: Packages"],
            "ask apt for its lists",
        )  # fmt: skip
        found: list[Candidate] = []
        for line in listed.splitlines():
            uri, suite, path = line.split("|", 2)
            if Path(path).exists():
                unpacked = subprocess.run([_HELPER, option, "cat-file", path], capture_output=True, check=False)
                found += kernels_in(parse(unpacked.stdout), suite, uri)
    trouble = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
    return sorted(found, key=lambda candidate: order(candidate.version), reverse=True), trouble


def _configure(cache: Cache, where: Iterable[Source]) -> Path:
    directory = cache.directory / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    _write(directory / "sources.list", "".join(f"{source.line}\n" for source in where))
    configuration = directory / "apt.conf"
    # Read last, so the system's own settings (a proxy, say) hold but for these. Hooks are for its own lists.
    _write(
        configuration,
        f'Dir::State "{directory}";\n'
        f'Dir::State::Lists "{directory}/lists";\n'
        'Dir::State::Status "/dev/null";\n'
        f'Dir::Cache "{directory}/cache";\n'
        f'Dir::Etc::SourceList "{directory}/sources.list";\n'
        'Dir::Etc::SourceParts "/dev/null";\n'
        'Dir::Etc::Preferences "/dev/null";\n'
        'Dir::Etc::PreferencesParts "/dev/null";\n'
        'Acquire::Languages "none";\n'
        'Acquire::GzipIndexes "true";\n'
        'Acquire::Retries "3";\n'
        'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
        'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        # The user _apt, to whom root's apt would go over, may not write where the cache usually is.
        'APT::Sandbox::User "root";\n'
        "#clear APT::Update::Pre-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n",
    )
    return configuration


def _write(path: Path, text: str) -> None:
    """Write a file at once: another process may be reading it."""
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text)
    aside.rename(path)


def parse(data: bytes) -> Iterator[dict[str, str]]:
    """Read the stanzas of kernels' packages out of a list (a Packages file; deb-control(5))."""
    start = data.find(b"Package: linux-")
    while start != -1:
        # Lists are of tens of megabytes: only what may be wanted is decoded.
        end = data.find(b"\n\n", start)
        stanza = (data[start:] if end == -1 else data[start:end]).decode(errors="replace")
        if _WANTED.fullmatch(stanza.partition("\n")[0].removeprefix("Package: ")):
            # A line that goes on begins with a space.
            yield dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        start = data.find(b"\nPackage: linux-", start)
        start += start != -1


def kernels_in(stanzas: Iterable[Mapping[str, str]], suite: str, uri: str) -> list[Candidate]:
    """Find the kernels that are there with all their packages.

    Up to 6.18 one package has image and modules. From 6.19 on it is empty and needs three others, and where a suite
    keeps old versions, the signed image (``linux-binary``) is often there without its modules.

    :param uri: the mirror, ending with a slash.
    """
    packages: dict[tuple[str, str], Package] = {}
    images: dict[tuple[str, str], str] = {}
    for stanza in stanzas:
        name, version = stanza["Package"], stanza["Version"]
        packages[name, version] = Package(
            name, version, uri + stanza["Filename"], int(stanza["Size"]), stanza["SHA256"]
        )
        if name.startswith("linux-image-"):
            images[name, version] = stanza.get("Depends", "")
    found = []
    for (name, version), needs in images.items():
        release = name.removeprefix("linux-image-")
        if f"linux-binary-{release} " in needs:
            wanted = [(f"linux-{part}-{release}", version) for part in ("binary", "modules", "base")]
            if not all(one in packages for one in wanted):
                continue
        elif "linux-image-" in needs:
            continue  # it only depends on the newest of a series
        else:
            wanted = [(name, version)]
        found.append(Candidate(release, version, suite, tuple(packages[one] for one in wanted)))
    return found


def newest_of_each_series(found: Iterable[Candidate]) -> list[Candidate]:
    """Keep the first of each series."""
    kept: dict[str, Candidate] = {}
    for candidate in found:
        kept.setdefault(candidate.series, candidate)
    return list(kept.values())


def download(package: Package, directory: Path, configuration: Path) -> Path:
    """Fetch a package and verify it.

    :raises LabError: it cannot be had, or is not what the lists say.
    """
    path = directory / f"{package.name}.deb"
    say(f"fetching {package.name} {package.version} ({package.size / 1e6:,.0f} MB)")
    done = subprocess.run(
        [_HELPER, f"--config-file={configuration}", "download-file", package.uri, path, f"SHA256:{package.sha256}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(f"cannot fetch {package.uri}: {last_words(done.stderr or done.stdout)}")
    verify(path, package)
    return path


def verify(path: Path, package: Package) -> None:
    """Compare a file with what the signed lists say of it.

    :raises LabError: it differs.
    """
    size = path.stat().st_size
    if size != package.size:
        raise LabError(f"{package.uri} was cut: {size:,} of {package.size:,} bytes came")
    if checksum(path) != package.sha256:
        raise LabError(f"{package.uri} is not what the signed lists say: the checksum differs")


def checksum(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
