"""What `bootstrap` decides on a made-up system: its own /usr, a Python that notes what it is asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[2]

# Makes an environment of one link, leaves pip to the log, and lets the real Python answer everything else.
PYTHON = """#!/bin/sh
case $* in
"-I -m venv "*)
    echo venv >>"$LOG"
    [ ! -p "$GATE" ] || read -r _ <"$GATE"
    mkdir -p "$4/bin" && ln -s {self} "$4/bin/python"
    ;;
"-I -m pip "*)
    echo pip >>"$LOG"
    case $* in *" ${{PIP_FAILS_AT:-no such word}} "*) exit 1 ;; esac
    ;;
*"import ensurepip"*) exit "${{UNFIT:-0}}" ;;
*) exec {real} "$@" ;;
esac
"""

# What bootstrap brings for the cases of load, with their packages.
PROGRAMS_OF_LOAD = {"nginx": "nginx", "curl": "curl", "tc": "iproute2"}

# What the script itself calls, found on the machine that runs the tests.
BORROWED = [
    "cat",
    "cksum",
    "env",
    "ln",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sh",
    "sort",
    "tail",
    "tr",
    "true",
    "uname",
]


@dataclass
class System:
    """A system under ``root`` with a checkout, as `bootstrap` sees it."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.root / "a checkout"

    @property
    def stamp(self) -> Path:
        return self.checkout / ".venv/stamp"

    @property
    def log(self) -> Path:
        return self.root / "log"

    def program(self, name: str, text: str) -> Path:
        path = self.root / "usr/bin" / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def command(self, *arguments: str, checkout: Path | None = None) -> list[str]:
        return [str((checkout or self.checkout) / "bootstrap"), *arguments]

    def variables(self) -> dict[str, str]:
        usual = {"LOG": str(self.log), "GATE": str(self.root / "gate"), "HOME": str(self.root / "home")}
        return {"PATH": str(self.root / "usr/bin"), **usual, **self.environ}

    def run(self, *arguments: str, checkout: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Calls bootstrap and forgets what earlier calls wrote to the log."""
        self.log.write_text("")
        return subprocess.run(
            self.command(*arguments, checkout=checkout),
            env=self.variables(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A complete system: packages installed, no environment yet, the caller is no root."""
    system = System(tmp_path)
    programs = tmp_path / "usr/bin"
    programs.mkdir(parents=True)
    for name in BORROWED:
        found = shutil.which(name)
        assert found, f"the tests of bootstrap need {name} on PATH"
        (programs / name).symlink_to(found)
    system.program("python3", PYTHON.format(self=programs / "python3", real=sys.executable))
    system.program("id", "#!/bin/sh\necho 1000\n")
    system.program("stat", "#!/bin/sh\necho 1000\n")
    for name in ("iptables-nft-restore", *PROGRAMS_OF_LOAD):
        system.program(name, "#!/bin/sh\n")
    library = tmp_path / "usr/lib/triplet/libnftables.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    system.checkout.mkdir()
    shutil.copy(CHECKOUT / "pyproject.toml", system.checkout)
    # All places that the script names outright move into the made-up root.
    text = (CHECKOUT / "bootstrap").read_text().replace(":/sbin", "")
    moved = re.sub(r"(?<![\w./])/(usr|etc|run)/", rf"{tmp_path}/\1/", text)
    (system.checkout / "bootstrap").write_text(moved)
    (system.checkout / "bootstrap").chmod(0o755)
    return system


@pytest.mark.parametrize("arguments", [(), ("",), ("--no-such-option",)])
def test_usage_is_exit_2(system: System, arguments: tuple[str, ...]) -> None:
    done = system.run(*arguments)
    assert done.returncode == 2
    assert "usage: ./bootstrap COMMAND" in done.stderr
    assert done.stdout == ""


def test_help_goes_to_stdout(system: System) -> None:
    done = system.run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ./bootstrap COMMAND")
    assert "./bootstrap pytest" in done.stdout


def test_first_call_installs_and_second_only_runs(system: System) -> None:
    script = 'echo "$VIRTUAL_ENV"; echo "${PATH%%:*}"; exit 37'
    first = system.run("sh", "-c", script)
    venv = system.checkout / ".venv"
    assert first.stdout.splitlines() == [str(venv), str(venv / "bin")]
    assert first.returncode == 37
    assert system.asked() == ["venv", "pip", "pip"]
    second = system.run("sh", "-c", script)
    assert (second.stdout, second.returncode) == (first.stdout, 37)
    assert second.stderr == ""
    assert system.asked() == []


def test_requirements_are_the_dependencies_and_the_group(system: System) -> None:
    system.run("true")
    wanted = (system.checkout / ".venv/requirements.txt").read_text()
    for name in ("scapy", "pyroute2", "hatchling", "ruff"):
        assert f"\n{name}" in f"\n{wanted}"


def test_arguments_and_input_reach_the_command(system: System) -> None:
    done = subprocess.run(
        system.command("sh", "-c", 'cat; printf "<%s>" "$@"', "sh", "two words", "*", ""),
        env=system.variables(),
        capture_output=True,
        text=True,
        check=True,
        input="from stdin ",
    )
    assert done.stdout == "from stdin <two words><*><>"


def test_command_takes_the_place_of_bootstrap(system: System) -> None:
    """Signals and a supervisor's eye then reach the command itself."""
    system.run("true")
    with subprocess.Popen(
        system.command("sh", "-c", "echo $$"), env=system.variables(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.communicate()[0] == f"{process.pid}\n"


def test_changed_project_is_mended_in_place(system: System) -> None:
    system.run("true")
    with (system.checkout / "pyproject.toml").open("a") as file:
        file.write("# a change\n")
    assert system.run("true").returncode == 0
    assert system.asked() == ["pip", "pip"]
    system.run("true")
    assert system.asked() == []


def test_moved_environment_is_made_anew(system: System) -> None:
    system.run("true")
    moved = system.root / "elsewhere"
    system.checkout.rename(moved)
    assert system.run("true", checkout=moved).returncode == 0
    assert system.asked() == ["venv", "pip", "pip"]


def test_environment_of_another_machine_is_made_anew(system: System) -> None:
    system.run("true")
    python = system.checkout / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/no/such/python3.11")
    assert system.run("true").returncode == 0
    assert system.asked() == ["venv", "pip", "pip"]


def test_root_leaves_no_bytecode_in_another_users_checkout(system: System) -> None:
    show = ("sh", "-c", 'echo "${PYTHONDONTWRITEBYTECODE-unset}"')
    assert system.run(*show).stdout == "unset\n"
    system.program("id", "#!/bin/sh\necho 0\n")
    assert system.run(*show).stdout == "1\n"
    system.program("stat", "#!/bin/sh\necho 0\n")
    assert system.run(*show).stdout == "unset\n"


def test_another_python_behind_the_link_is_made_anew(system: System) -> None:
    system.run("true")
    newer = system.root / "usr/bin/python3.99"
    (system.root / "usr/bin/python3").rename(newer)
    (system.root / "usr/bin/python3").symlink_to(newer)
    assert system.run("true").returncode == 0
    assert system.asked() == ["venv", "pip", "pip"]


@pytest.mark.parametrize("step", ["--requirement", "--editable"])
def test_failed_installation_is_named_and_made_anew(system: System, step: str) -> None:
    system.environ["PIP_FAILS_AT"] = step
    failed = system.run("sh", "-c", "echo ran")
    assert failed.returncode == 2
    assert "pip could not install" in failed.stderr
    assert failed.stdout == ""
    assert not system.stamp.exists()
    del system.environ["PIP_FAILS_AT"]
    assert system.run("true").returncode == 0
    assert system.asked() == ["venv", "pip", "pip"]


def test_two_at_once_make_one_environment(system: System) -> None:
    gate = system.root / "gate"
    os.mkfifo(gate)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            system.command("true"),
            env=system.variables(),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    with start() as first:
        with gate.open("w") as held, start() as second:  # opens as soon as the first waits at the gate
            assert second.stderr is not None
            try:
                assert second.stderr.readline() == "bootstrap: waiting for another bootstrap\n"
            finally:
                held.write("go\n" * 2)
                held.flush()
            second.wait()
        first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert system.asked() == ["venv", "pip", "pip"]


@pytest.fixture
def ordinary_user(system: System) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Gives a call of bootstrap by a user who may read the system and write a home and the log alone."""
    # The real Python may lie in root's home: what it would be asked for is no matter here.
    system.program("python3", PYTHON.format(self=system.root / "usr/bin/python3", real="true"))
    (system.root / "home").mkdir()
    system.log.touch()
    drop: list[str] = []
    if os.geteuid() == 0:
        # An earlier test may have made this process root of a user namespace, which knows no other user.
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            pytest.skip("in a user namespace there is no other user: run it by itself, or with sudo")
        drop = [shutil.which("setpriv") or "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(system.root / "home", 65534, 65534)
        system.log.chmod(0o666)
        for directory in (
            system.root,
            *system.root.parents[:-2],
        ):  # pytest keeps its directories for their owner
            directory.chmod(directory.stat().st_mode | 0o111)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        system.log.write_text("")
        command = [*drop, *system.command(*arguments)]
        return subprocess.run(command, env=system.variables(), capture_output=True, text=True, check=False)

    return call


WHICH = ("sh", "-c", 'echo "$VIRTUAL_ENV"')


def test_another_users_environment_serves_as_it_is(
    system: System, ordinary_user: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    system.run("true")
    system.checkout.chmod(0o555)
    assert ordinary_user(*WHICH).stdout == f"{system.checkout}/.venv\n"
    assert system.asked() == []


@pytest.mark.parametrize("out_of_reach", ["the checkout", "the environment"])
def test_what_cannot_be_written_is_made_in_the_callers_cache(
    system: System, ordinary_user: Callable[..., subprocess.CompletedProcess[str]], out_of_reach: str
) -> None:
    system.run("true")
    if out_of_reach == "the checkout":
        shutil.rmtree(system.checkout / ".venv")
        system.checkout.chmod(0o555)
    else:
        system.stamp.write_text("stale\n")
        system.checkout.chmod(0o777)
        system.stamp.parent.chmod(0o555)
    own = ordinary_user(*WHICH)
    assert own.stdout.startswith(f"{system.root}/home/.cache/kube-proxy-lab/")
    assert system.asked() == ["venv", "pip", "pip"]
    assert ordinary_user(*WHICH).stdout == own.stdout
    assert system.asked() == []
    system.environ["HOME"] = "/proc/no-home"
    homeless = ordinary_user(*WHICH)
    assert homeless.returncode == 2
    assert "set XDG_CACHE_HOME" in homeless.stderr


APT = '#!/bin/sh\necho "${0##*/} $*" >>"$LOG"\n'


def without_packages(system: System) -> None:
    (system.root / "usr/bin/iptables-nft-restore").unlink()
    (system.root / "usr/lib/triplet/libnftables.so.1").unlink()
    system.environ["UNFIT"] = "1"  # no Python on this system has venv
    system.program("apt-get", APT)
    system.program("apt-cache", "#!/bin/sh\n")


def test_missing_packages_without_root_or_sudo_are_one_line_to_run(system: System) -> None:
    without_packages(system)
    done = system.run("true")
    assert done.returncode == 2
    assert done.stderr == (
        "bootstrap: packages are missing; run as root: "
        "apt-get update && apt-get install --no-install-recommends iptables nftables python3-venv\n"
    )
    assert system.asked() == []


def test_sudo_that_refuses_is_the_same_line(system: System) -> None:
    without_packages(system)
    system.program("sudo", "#!/bin/sh\nexit 1\n")
    done = system.run("true")
    assert done.returncode == 2
    assert "run as root: apt-get update" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert system.asked() == []


def test_sudo_installs(system: System) -> None:
    (system.root / "usr/bin/iptables-nft-restore").unlink()
    system.program("sudo", '#!/bin/sh\necho "sudo $*" >>"$LOG"\nexec "$@"\n')
    brings = 'case $* in *install*iptables*) ln -s sh "${0%/*}/iptables-nft-restore" ;; esac\n'
    system.program("apt-get", APT + brings)
    done = system.run("sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    calls = [call for call in system.asked() if call.startswith("apt-get")]
    assert calls[0].startswith("apt-get update")
    assert calls[1].endswith(" iptables")
    assert len(calls) == 2
    assert any(call.startswith("sudo ") and "apt-get install" in call for call in system.asked())
    assert system.run("true").returncode == 0
    assert system.asked() == []


@pytest.fixture
def bare(system: System) -> System:
    """Without what the cases of load need; apt-get brings it, says what systemd would have found, and root is had."""
    for program in PROGRAMS_OF_LOAD:
        (system.root / "usr/bin" / program).unlink()
    (system.root / "run/systemd/system").mkdir(parents=True)
    system.program("sudo", '#!/bin/sh\nexec "$@"\n')
    system.program("runlevel", "#!/bin/sh\necho N 5\n")
    brings = """case $* in
*install*" ${NOT_TO_BE_HAD:-nothing}") exit 100 ;;
*install*" nginx") readlink "$UNIT" >>"$LOG"; ln -s sh "${0%/*}/nginx" ;;
*install*" curl") ln -s sh "${0%/*}/curl" ;;
*install*" iproute2") ln -s sh "${0%/*}/tc" ;;
esac
"""
    system.program("apt-get", APT + brings)
    system.environ["UNIT"] = str(system.root / "etc/systemd/system/nginx.service")
    return system


def installed(system: System) -> list[str]:
    """Gives the packages that apt was asked for, in a call that has just been made."""
    return [call.rpartition(" ")[2] for call in system.asked() if call.startswith("apt-get install")]


def test_what_the_cases_of_load_need_is_brought_and_nginx_does_not_start(bare: System) -> None:
    done = bare.run("true")
    assert done.returncode == 0
    assert installed(bare) == ["nginx", "curl", "iproute2"]
    assert bare.asked()[2] == "/dev/null"  # the unit, when nginx came
    assert "its service is masked (systemctl unmask nginx)" in done.stderr
    assert bare.run("true").stderr == ""
    assert bare.asked() == []


def test_another_init_that_runs_is_not_given_nginx_to_start(bare: System) -> None:
    (bare.root / "run/systemd/system").rmdir()
    done = bare.run("true")
    assert done.returncode == 0
    assert installed(bare) == ["curl", "iproute2"]
    assert "going on without nginx: the cases congested and congested-without-nat cannot be had here" in done.stderr
    bare.program("runlevel", "#!/bin/sh\necho unknown; exit 1\n")  # in a container: nothing runs that could start it
    shutil.rmtree(bare.stamp.parent)
    assert bare.run("true").returncode == 0
    assert installed(bare) == ["nginx"]


def test_a_unit_of_somebodys_own_is_left_alone(bare: System) -> None:
    unit = Path(bare.environ["UNIT"])
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    assert "going on without nginx:" in bare.run("true").stderr
    assert unit.read_text() == "[Service]\n"
    assert installed(bare) == ["curl", "iproute2"]


@pytest.mark.parametrize("package", PROGRAMS_OF_LOAD.values())
def test_one_of_them_that_cannot_be_had_is_named_and_the_rest_goes_on(bare: System, package: str) -> None:
    bare.environ["NOT_TO_BE_HAD"] = package
    done = bare.run("sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert f"going on without {package}: " in done.stderr
    assert Path(bare.environ["UNIT"]).is_symlink() is (package != "nginx")


def test_an_ordinary_user_goes_on_without_what_only_some_cases_need(bare: System) -> None:
    (bare.root / "usr/bin/sudo").unlink()
    done = bare.run("sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    [said] = [line for line in done.stderr.splitlines() if "nginx" in line]
    assert said == (
        "bootstrap: going on without nginx curl iproute2: the cases congested and congested-without-nat cannot be had"
        " here; for them, as root: systemctl mask nginx; apt-get install --no-install-recommends nginx curl iproute2"
    )
    assert installed(bare) == []
    assert bare.run("true").stderr == ""  # said once


def test_the_cases_that_need_them_are_those_that_are_named() -> None:
    from lab.cases import congested

    first, second = (case.name for case in congested.CASES)
    assert f"the cases {first} and {second} cannot be had" in (CHECKOUT / "bootstrap").read_text()


def limited(system: System, open_files: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Calls bootstrap in a shell whose processes may have so many files open."""
    system.log.write_text("")
    shell = ["/bin/sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh"]
    return subprocess.run(
        [*shell, *system.command(*command)], env=system.variables(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("limit", [12, 13, 15])
def test_few_descriptors_are_named_and_nothing_is_held_missing_for_want_of_them(system: System, limit: int) -> None:
    system.program("apt-get", APT)
    system.program("sudo", '#!/bin/sh\necho "sudo $*" >>"$LOG"\nexec "$@"\n')
    done = limited(system, limit, "true")
    assert done.returncode == 2
    assert done.stderr == (
        f"bootstrap: a process may have {limit} files open here, and more are needed: "
        "`ulimit -n 1024`, and call again\n"
    )
    assert system.asked() == []
    assert not system.stamp.exists()


def test_what_is_asked_for_is_enough(system: System) -> None:
    assert limited(system, 16, "true").returncode == 0
    assert limited(system, 16, "sh", "-c", "ulimit -n").stdout == "16\n"  # the caller's own is kept


def test_system_without_apt_names_the_packages(system: System) -> None:
    without_packages(system)
    (system.root / "usr/bin/apt-get").unlink()
    (system.root / "usr/bin/apt-cache").unlink()
    done = system.run("true")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for name in ("apt-get", "Python 3.11", "iptables", "nftables"):
        assert name in done.stderr


def test_distribution_with_an_old_default_python_offers_the_newer_one(system: System) -> None:
    """Ubuntu 22.04: python3 is 3.10, and universe has python3.11."""
    without_packages(system)
    answers = """case $1 in
policy) printf 'python3:\\n  Installed: 3.10.6-1~22.04\\n  Candidate: 3.10.6-1~22.04.1\\n' ;;
pkgnames) printf 'python3.9-venv\\npython3.10-venv\\npython3.11\\npython3.11-venv\\n' ;;
esac
"""
    system.program("apt-cache", "#!/bin/sh\n" + answers)
    assert system.run("true").stderr.endswith(" iptables nftables python3.11-venv\n")


def test_other_kernels_are_sent_to_vagrant(system: System) -> None:
    system.program("uname", "#!/bin/sh\necho Darwin arm64\n")
    done = system.run("true")
    assert done.returncode == 2
    assert "vagrant/" in done.stderr


def test_script_is_plain_sh() -> None:
    text = (CHECKOUT / "bootstrap").read_text()
    assert text.startswith("#!/bin/sh\n")
    assert os.access(CHECKOUT / "bootstrap", os.X_OK)
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    subprocess.run([checker, CHECKOUT / "bootstrap"], check=True)
