"""Labs that stay, from `lab up` to `lab down`, on the real kernel."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from lab.errors import InputError, LabError, MissingError
from lab.netns import Namespace, userns
from lab.standing import commands, control, names, record
from lab.standing.up import suggestions, up
from lab.topology.reader import load, parse, shipped
from lab.vocabulary import Family, ProxyMode
from tests.support.command import lab as lab_command

PATIENCE = 5.0  # seconds; the end of a wait that an event ends at once

root = pytest.mark.lab_needs_root


@pytest.fixture
def topology():
    return load("kube-proxy")


def mounts():
    return Path("/proc/thread-self/mountinfo").read_text()


def kill(lab):
    process = os.pidfd_open(lab.owner)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    assert select.select([process], [], [], PATIENCE)[0]
    os.close(process)


@root
def test_up_shows_the_lab_and_down_leaves_nothing(own_run, topology):
    before = mounts()
    lab = up(topology)
    assert record.labs() == (lab,)
    assert (lab.name, lab.topology) == ("kube-proxy", "kube-proxy")
    assert lab.host("client").addresses == ("10.0.0.2/24", "fd00:10::2/64")
    assert b"lab.standing.owner" in Path(f"/proc/{lab.owner}/cmdline").read_bytes()
    assert lab.owner is not None
    owner = os.pidfd_open(lab.owner)
    commands.down(lab)
    assert select.select([owner], [], [], 0)[0]  # it has ended
    os.close(owner)
    assert record.labs() == ()
    assert list(own_run.iterdir()) == []
    assert mounts() == before


def test_an_address_that_all_ends_of_a_bridge_have_is_the_hosts_once():
    topology = load("bridge")
    [node] = [
        one for one in record.describe("mine", topology, tuple(Family)).hosts if one.name == topology.nodes[0].name
    ]
    assert len(topology.ends(node.name)) > 2
    assert len(set(node.addresses)) == len(node.addresses)


@root
@pytest.mark.lab_needs_tool("ip")
def test_ip_netns_sees_the_hosts(own_run, topology):
    up(topology)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == {
        "kube-proxy-client",
        "kube-proxy-node",
        "kube-proxy-server",
    }
    inside = ["ip", "netns", "exec", "kube-proxy-server", "ip", "-o", "address"]
    assert "10.0.1.2/24" in subprocess.run(inside, capture_output=True, text=True, check=True).stdout


@root
@pytest.mark.lab_needs_tool("curl")
@pytest.mark.parametrize("mode", ProxyMode)
def test_curl_reaches_the_server_by_the_vip(own_run, mode):
    ran = lab_command("up", "kube-proxy", "--proxy-mode", mode)
    assert ran.returncode == 0, ran.stderr
    assert "lab exec client -- curl http://192.168.0.2\n" in ran.stdout
    seen = lab_command("exec", "client", "--", "curl", "-sg", "http://192.168.0.2", "http://[fd00:192:168::2]")
    first, second = seen.stdout.splitlines()
    assert first.startswith("server 10.0.1.2:80 answers 10.0.0.2:")
    assert second.startswith("server [fd00:10:0:1::2]:80 answers [fd00:10::2]:")


@root
def test_a_connection_is_kept_for_further_requests_and_reset_by_down(own_run, topology):
    lab = up(topology)
    namespace = Namespace.open(names.DIRECTORY / "kube-proxy-client")
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        namespace.close()
        client.settimeout(PATIENCE)
        client.connect(("192.168.0.2", 80))
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"server 10.0.1.2:80 answers 10.0.0.2:" in client.recv(4096)
        commands.down(lab)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@root
def test_udp_endpoints_echo(own_run):
    text = dict(shipped())["kube-proxy"].read_text().replace("protocol: TCP, port: 80", "protocol: UDP, port: 53")
    up(parse(text.replace("targetPort: 80", "targetPort: 53")))
    namespace = Namespace.open(names.DIRECTORY / "kube-proxy-client")
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        namespace.close()
        client.settimeout(PATIENCE)
        client.connect(("192.168.0.2", 53))
        client.send(b"hello")
        assert client.recv(100) == b"hello"


@root
def test_exec_passes_the_exit_code_on_and_shows_the_hosts_links_in_sys(own_run, topology):
    up(topology)
    ran = lab_command("exec", "node", "--", "sh", "-c", "ls /sys/class/net; exit 7")
    assert ran.returncode == 7
    assert ran.stdout.split() == ["client", "lo", "server"]


@root
def test_exec_makes_up_no_package_for_a_users_program(own_run, topology):
    up(topology)
    ran = lab_command("exec", "client", "--", "nosuchprog")
    assert (ran.returncode, ran.stdout) == (127, "")
    assert ran.stderr == "lab: there is no program 'nosuchprog' on PATH: mend its name, or install what brings it\n"


@root
def test_exec_tells_by_its_exit_code_why_nothing_ran(own_run, topology, tmp_path):
    """As shells do: 127 for what is not there, 126 for what is no program."""
    up(topology)
    (tmp_path / "text").write_text("no program\n")
    (tmp_path / "script").write_text("#!/no/such/shell\n")
    (tmp_path / "script").chmod(0o755)
    codes = {}
    for name in ("nosuch", "text", "script", "."):
        ran = lab_command("exec", "client", "--", tmp_path / name)
        codes[name] = ran.returncode
        assert len(ran.stderr.splitlines()) == 1
    assert codes == {"nosuch": 127, "text": 126, "script": 126, ".": 126}
    assert lab_command("exec", "client", "--", "text", PATH=f"{tmp_path}:{os.environ['PATH']}").returncode == 126


@root
def test_exec_gives_signals_back_that_python_ignores(own_run, topology):
    up(topology)
    ran = lab_command("exec", "client", "--", "sh", "-c", "grep SigIgn /proc/self/status")
    ignored = int(ran.stdout.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@root
@pytest.mark.lab_needs_tool("iptables-legacy-restore")
def test_iptables_locks_a_file_of_the_labs(own_run, topology):
    up(topology)
    ran = lab_command("exec", "client", "iptables-legacy", "-A", "INPUT", "-j", "ACCEPT")
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in own_run.iterdir()) == ["lab", "netns"]  # no xtables.lock


@root
@pytest.mark.lab_needs_tool("bash")
def test_the_shells_prompt_names_lab_and_host(own_run, topology):
    up(topology)
    ran = lab_command("shell", "client", given="cat /proc/net/dev\n")
    assert "[kube-proxy/client]" in ran.stderr
    assert "eth0" in ran.stdout


@root
def test_two_labs_stand_at_once(own_run, topology):
    first, second = up(topology), up(topology, name="other", family=Family.IPV4)
    assert second.host("client").addresses == ("10.0.0.2/24",)
    assert record.labs() == (first, second)
    with pytest.raises(InputError, match=r"several labs stand.*kube-proxy, other"):
        commands.choose(None)
    assert commands.choose("other") == second
    assert "lab exec --lab other client -- curl http://192.168.0.2" in suggestions(topology, second)
    commands.down(first)
    assert commands.choose(None) == second
    assert {path.name for path in names.DIRECTORY.iterdir()} == {"other-client", "other-node", "other-server"}


@root
def test_a_second_lab_of_the_same_name_is_refused_and_the_first_lives_on(own_run, topology):
    lab = up(topology)
    ran = lab_command("up", "kube-proxy")
    assert ran.returncode == 2
    assert ran.stderr.startswith("lab: a lab kube-proxy stands already (")
    assert ran.stderr.count("\n") == 1
    assert record.labs() == (lab,)


@root
def test_a_dead_owner_is_recognised_and_what_it_left_is_removed(own_run, topology):
    before = mounts()
    kill(up(topology))
    (dead,) = record.labs()
    assert dead.owner is None
    assert "its owner is dead" in "\n".join(commands.status_lines([dead]))
    with pytest.raises(LabError, match="owner of the lab kube-proxy is dead"):
        commands.enter(dead, dead.host("client"), ["true"])
    with pytest.raises(LabError, match="owner of the lab kube-proxy is dead"):
        control.endpoints(dead)
    commands.down(dead)
    assert list(own_run.iterdir()) == []
    assert mounts() == before


@root
def test_up_takes_the_place_of_a_dead_lab(own_run, topology):
    kill(up(topology))
    lab = up(topology)
    assert record.labs() == (lab,)
    assert lab.owner is not None


@root
def test_an_owner_that_died_before_it_wrote_its_record_is_removed(own_run):
    record.DIRECTORY.mkdir()
    (record.DIRECTORY / "half.json").touch()
    commands.down(commands.choose("half"))
    assert list(own_run.iterdir()) == []


@root
def test_an_interrupted_up_leaves_nothing(own_run, topology, monkeypatch):
    def interrupted(owner):
        owner.recv(1)  # it is ready, and waits for an answer
        assert record.labs() != ()
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.standing.handover._agree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        up(topology)
    assert list(own_run.iterdir()) == []


@root
@pytest.mark.lab_needs_tool("ip")
def test_a_name_that_is_taken_is_refused_and_left_alone(own_run, topology):
    subprocess.run(["ip", "netns", "add", "kube-proxy-node"], check=True)
    before = mounts()
    with pytest.raises(InputError, match="/run/netns/kube-proxy-node exists already"):
        up(topology)
    assert record.labs() == ()
    assert mounts() == before
    lab = up(topology, name="other")
    commands.down(lab)
    assert mounts() == before  # what `ip netns` prepared is not the lab's to undo


@root
def test_errors_of_the_owner_are_the_commands_own(own_run):
    # Only the owner writes the rules: a name that the API server would refuse twice.
    service = "---\n" + dict(shipped())["kube-proxy"].read_text().split("---\n")[1]
    text = dict(shipped())["kube-proxy"].read_text() + service.replace("name: web,", "name: again,")
    ran = lab_command("up", "-", given=text)
    assert ran.returncode == 2
    assert "both claim 192.168.0.2 80/tcp" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert list(own_run.iterdir()) == []


@root
def test_settings_and_what_is_said_of_them(own_run):
    """What is warned of is told once, whether the owner finds it or its starter."""
    first, service, *rest = dict(shipped())["kube-proxy"].read_text().split("---\n")
    service = service.replace("spec:\n", "spec:\n  externalIPs: [198.51.100.7]\n", 1)
    again = (
        service.replace("name: web,", "name: again,").replace("192.168.0.2", "192.168.0.3").replace("168::2", "168::3")
    )
    settings = ("--proxy-version=1.33", "--proxy-mode=nftables", "--conntrack-tcp-be-liberal", "--family=ipv4")
    ran = lab_command("up", "-", *settings, given="---\n".join([first, service, again, *rest]))
    assert ran.returncode == 0, ran.stderr
    note, conflict = ran.stderr.splitlines()
    assert note.startswith("lab: v1.33 stands for its newest patch: ")
    assert conflict.startswith("lab: default/web:http and default/again:http both claim 198.51.100.7 80/tcp: ")
    assert lab_command("exec", "node", "cat", "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal").stdout == "1\n"
    lab_command("down")


@pytest.mark.parametrize("name", ["", "Bad", "a_b", "-a", "a/b", "..", "x" * 64])
def test_bad_names_are_refused(name):
    ran = lab_command("up", "kube-proxy", f"--name={name}")
    assert ran.returncode == 2
    assert ("is no name for a lab" if name else "lab: --name: '' names nothing") in ran.stderr


def test_an_ordinary_user_is_told_to_be_root(topology, monkeypatch):
    monkeypatch.setattr(userns, "privileged", lambda: False)
    with pytest.raises(MissingError, match="a lab that stays needs root"):
        up(topology)


@root
@pytest.mark.parametrize("arguments", [("down", "nope"), ("exec", "client", "true"), ("down", "a", "--all")])
def test_what_does_not_stand_is_an_input_error(own_run, arguments):
    ran = lab_command(*arguments)
    assert ran.returncode == 2
    assert ran.stderr.startswith("lab: ")


@root
@pytest.mark.parametrize("made_by", ["0.0.9", None])
def test_a_lab_of_another_version_is_told_so_and_taken_down(own_run, topology, made_by):
    lab = up(topology)
    known = json.loads(lab.path.read_text())
    known |= {"version": made_by} if made_by else {"unheard_of": 1}
    known.pop("version" if made_by is None else "owner")
    with lab.path.open("r+b") as file:  # in its place, so that its owner holds it on
        file.truncate()
        file.write(json.dumps(known).encode())
    for words in (
        ("trace", "--to", "192.168.0.2:80", "--lab", "kube-proxy"),
        ("reach", "--lab", "kube-proxy"),
        ("inject", "beyond-window"),
        ("endpoints", "list"),
        ("services", "remove", "web"),
        ("kube-proxy", "stop", "node"),
    ):
        ran = lab_command(*words)
        its = f" (0.0.9, and this is {lab.version})" if made_by else ""
        cure = "`lab down kube-proxy`, then `lab up` again"
        assert (ran.returncode, ran.stdout) == (2, ""), words
        assert ran.stderr == f"lab: the lab kube-proxy was made by another version{its}: {cure}\n"
    status = lab_command("status", COLUMNS="200")
    assert f"process {lab.owner}, made by another version: it can be entered and taken down" in status.stdout
    assert json.loads(lab_command("status", "--json").stdout)["labs"][0]["version"] == (made_by or "")
    assert lab_command("exec", "client", "true").returncode == 0
    assert lab_command("down").stdout == "The lab kube-proxy is gone.\n"
    assert list(own_run.iterdir()) == []


@root
def test_an_owner_and_whoever_asks_it_may_know_different_things(own_run, topology):
    """As in a working copy, whose number stays the same."""
    lab = up(topology)
    with pytest.raises(LabError, match="made by another version, which knows nothing of this"):
        control._ask(lab, {"unheard of": "it"}, dict)
    with pytest.raises(LabError, match="the lab kube-proxy was made by another version: `lab down kube-proxy`"):
        control._ask(lab, {}, lambda answer: answer["traced"])
