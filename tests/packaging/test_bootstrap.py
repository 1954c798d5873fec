"""What `bootstrap` decides on a made-up system: its own /usr, a Python that notes what it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.netns import packages
from lab.netns.program import find
from tests.support.made_up_system import BORROWED, PROGRAMS_OF_LOAD, System

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[2]


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


def without_apt(system: System, manager: str = "") -> None:
    without_packages(system)
    for program in ("apt-get", "apt-cache"):
        (system.root / "usr/bin" / program).unlink()
    if manager:
        system.program(manager, APT)


def test_a_system_that_is_not_known_is_told_what_to_bring_by_hand(system: System) -> None:
    without_apt(system)
    done = system.run("true")
    assert done.returncode == 2
    assert done.stderr == (
        "bootstrap: no package manager that is known here (apt-get, dnf, apk, pacman, zypper): install what is missing"
        " by hand, and call again: iptables (iptables-nft-restore), nftables (libnftables.so.1),"
        " Python 3.11 or newer (with venv and ensurepip)\n"
    )


@pytest.mark.parametrize(
    ("manager", "command", "python"),
    [
        ("dnf", "dnf install", "python3.12"),  # the python3 that is there is too old
        ("apk", "apk add", "python3"),
        ("pacman", "pacman -S", "python"),
        ("zypper", "zypper install", "python313"),
    ],
)
def test_another_package_manager_is_named_with_its_packages_and_not_called(
    system: System, manager: str, command: str, python: str
) -> None:
    """Their names are those that the lab's own errors have."""

    def named(*things: str) -> str:
        return " ".join(packages.package(thing, packages.Manager(manager)) or "" for thing in things)

    without_apt(system, manager)
    for program in PROGRAMS_OF_LOAD:
        (system.root / "usr/bin" / program).unlink()
    done = system.run("true")
    assert done.returncode == 2
    needed = named("iptables-nft-restore", "libnftables.so.1")
    assert done.stderr == f"bootstrap: packages are missing; run as root: {command} {needed} {python}\n"

    system.program("iptables-nft-restore", "#!/bin/sh\n")
    (system.root / "usr/lib/triplet/libnftables.so.1").touch()
    del system.environ["UNFIT"]
    done = system.run("sh", "-c", "echo ran")
    assert done.stdout == "ran\n"  # where all is there that nothing goes without
    assert f"as root: {command} {named('nginx', 'curl', 'tc')}\n" in done.stderr
    assert not [call for call in system.asked() if call.startswith(manager)]


@pytest.mark.lab_needs_tool("busybox")
def test_busybox_will_do(system: System) -> None:
    """As on Alpine: no GNU program, and its shell."""
    busybox = find("busybox")
    has = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in {*BORROWED, "id", "stat"} & {*has}:  # Debian's has no cksum, Alpine's has
        (system.root / "usr/bin" / name).unlink()
        (system.root / "usr/bin" / name).symlink_to(busybox)

    def call() -> tuple[int, str]:
        system.log.write_text("")
        command = [busybox, "sh", *system.command("sh", "-c", "echo ran")]
        done = subprocess.run(command, env=system.variables(), capture_output=True, text=True, check=False)
        assert done.stdout == "ran\n", done.stderr
        return done.returncode, done.stderr

    assert call()[0] == 0
    assert system.asked() == ["venv", "pip", "pip"]
    assert call() == (0, "")
    assert system.asked() == []
    with (system.checkout / "pyproject.toml").open("a") as file:
        file.write("# a change\n")
    assert call()[0] == 0
    assert system.asked() == ["pip", "pip"]  # mended in place: its owner was read


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


def test_the_same_before_there_are_package_lists(system: System) -> None:
    without_packages(system)
    (system.root / "etc").mkdir(exist_ok=True)
    release = system.root / "etc/os-release"
    release.write_text('ID=ubuntu\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\n')
    assert system.run("true").stderr.endswith(" iptables nftables python3.11-venv\n")
    release.write_text("ID=debian\nVERSION_CODENAME=trixie\n")
    assert system.run("true").stderr.endswith(" iptables nftables python3-venv\n")


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
