"""`lab matrix` as people call it, on the one kernel that is there without booting any: this machine's own."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import lab, python

COMMAND = (sys.executable, "-m", "lab", "matrix")


def matrix(*arguments, **environment):
    return lab("matrix", *arguments, **environment)


def children(process):
    return {
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    }


def until_it_tries(process):
    """Wait until the trials have begun: what runs them holds a namespace besides its own."""
    end = time.monotonic() + 60
    while not any(is_trying(child) for child in children(process.pid)):
        assert process.poll() is None
        assert time.monotonic() < end
        select.select([], [], [], 0.01)


def is_trying(process):
    try:
        return any(os.readlink(fd).startswith("net:") for fd in Path(f"/proc/{process}/fd").iterdir())
    except OSError:  # it was about to become another program, or has just closed one
        return False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-case",), "there is no case 'no-such-case'"),
        (("--fix", "prayer"), "there is no fix 'prayer'"),
        (("--kernels", "linux"), "'linux' is no kernel"),
        (("--kernels", "running,linux"), "'linux' is no kernel"),
        (("--kernels", " , "), "--kernels names none"),
        (("--kernels", "/no/such/vmlinuz"), "/no/such/vmlinuz"),
        (("--proxy-version", "v9.9"), "'v9.9' is no version of kube-proxy"),
        (("--proxy-mode", "nftables", "--backend", "legacy"), "backend"),
        (("--jobs", "0"), "--jobs"),
        (("--html", "/no/such/folder/x.html"), "cannot write /no/such/folder/x.html: No such file"),
        (("--kernels", "5.10", "--scheduler", "tcp://127.0.0.1:1"), "no Dask scheduler at tcp://127.0.0.1:1"),
        (("--kernels", "5.10", "--scheduler", "nonsense://here"), "no Dask scheduler at nonsense://here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_clear_error_and_nothing_is_booted(arguments, words):
    kernels = () if "--kernels" in arguments else ("--kernels", "running")
    done = matrix(*kernels, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "runs the trials" not in done.stderr
    assert done.stdout == ""


def test_help_says_what_it_takes_and_exits_with():
    text = matrix("--help").stdout
    assert "lab matrix --kernels 5.10,6.12,running --html matrix.html" in text
    assert "a kernel gave no results" in " ".join(text.split())


def test_jobs_are_told_as_lab_run_is_told():
    done = matrix("in-window", "--kernels", "running", "-j", "2")
    assert (done.returncode, done.stderr.startswith("lab: --jobs is for guests")) == (2, True)


def test_the_last_name_of_the_list_is_completed():
    from lab.cli.arguments import complete_list
    from lab.cli.matrix import _kernel_names

    completed = complete_list(_kernel_names)
    assert completed("6.1,ne") == ["6.1,newest"]
    assert "running" in completed("")
    assert "6.1,6.1" not in completed("6.1,")


@pytest.mark.lab_kernel
class TestRunning:
    def test_all_forms_at_once(self, tmp_path):
        files = {form: tmp_path / f"matrix.{form}" for form in ("json", "html", "junit", "md")}
        options = [word for form, path in files.items() for word in (f"--{form}", str(path))]
        done = matrix("in-window", "--kernels", "running", "--fix", "none", "--fix", "be_liberal", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 of 2 trials gave what this kernel is expected to give." in done.stdout
        assert "lab: running: 2 of 2 trials as expected" in done.stderr
        [column] = json.loads(files["json"].read_text())["columns"]
        assert column["release"] == os.uname().release
        assert [one["trial"]["fix"] for one in column["report"]["tallies"]] == ["none", "be-liberal"]
        assert files["html"].read_text().startswith("<!DOCTYPE html>")
        assert files["junit"].read_text().startswith("<?xml")
        text = files["md"].read_text()
        judged = "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4), topology kube-proxy"
        assert text.index(judged) < text.index("| case | fix |")
        assert judged in done.stdout.replace("\n", " ")

    def test_the_choices_are_those_of_lab_run(self, tmp_path):
        done = matrix(
            *("in-window", "--kernels", "running", "--fix", "none", "--family", "ipv6", "--proxy-mode", "nftables"),
            *(
                "--proxy-version",
                "1.33",
                "--repeat",
                "2",
                "--json",
                "-",
                "--masquerade-all",
                "--cluster-cidr=fd01::/64",
            ),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [tally] = json.loads(done.stdout)["columns"][0]["report"]["tallies"]
        assert tally["runs"] == 2
        assert tally["trial"]["family"] == "ipv6"
        assert (tally["trial"]["proxy_mode"], tally["trial"]["proxy_version"]) == ("nftables", "v1.33")
        assert tally["trial"]["settings"] == ["--cluster-cidr=fd01::/64", "--masquerade-all=true"]

    def test_what_kube_proxys_file_says_reaches_the_guests(self, tmp_path):
        """Where that file is not: as options."""
        file = tmp_path / "kube-proxy.yaml"
        file.write_text(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n"
            "nftables: {masqueradeAll: true}\niptables: {masqueradeBit: 3}\nconntrack: {tcpBeLiberal: false}\n"
        )
        done = matrix("in-window", "--kernels=running", "--fix=none", "--json=-", "--kube-proxy-config", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        [tally] = json.loads(done.stdout)["columns"][0]["report"]["tallies"]
        assert tally["trial"]["proxy_mode"] == "nftables"
        assert tally["trial"]["settings"] == ["--masquerade-all=true", "--conntrack-tcp-be-liberal=false"]

    def test_a_kernel_that_takes_too_long_is_a_red_column(self):
        done = matrix("in-window", "--kernels", "running", "--repeat", "100000", "--limit", "2")
        assert done.returncode == 1
        assert "gave no results: out of time: not finished after 2 s; --limit gives it more" in done.stdout.replace(
            "\n", " "
        )
        assert "1 of 1 kernels gave no results." in done.stdout

    def test_a_kernel_whose_command_fails_is_one_as_well(self):
        code = (
            "import sys, lab.kernels.on_kernel as trials; trials.sys = type('S', (), {'executable': '/bin/false'})\n"
            "sys.argv = ['lab', 'matrix', 'in-window', '--kernels', 'running']\n"
            "from lab.__main__ import main; main()"
        )
        done = python("-c", code)
        assert done.returncode == 1
        assert "gave no results: the command ended with exit code 1" in done.stdout

    def test_ctrl_c_ends_everything_and_leaves_nothing(self, tmp_path):
        process = subprocess.Popen(
            [*COMMAND, "in-window", "--kernels", "running", "--repeat", "100000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the signal comes to it alone, as from `kill`
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        until_it_tries(process)
        started = children(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert out == ""
        assert started
        assert not any(Path(f"/proc/{child}").exists() for child in started)
        assert list(tmp_path.iterdir()) == []

    def test_the_trials_end_with_a_command_that_is_killed(self, tmp_path):
        with subprocess.Popen(
            [*COMMAND, "in-window", "--kernels", "running", "--repeat", "100000"],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        ) as process:
            until_it_tries(process)
            [trials] = map(os.pidfd_open, children(process.pid))
            process.kill()
        assert select.select([trials], [], [], 60)[0]
        os.close(trials)
