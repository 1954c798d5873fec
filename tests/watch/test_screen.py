"""The full-screen program, driven as Textual drives it, on the packets of a lab."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, closing

import pytest

from lab.fabric.lab import Lab
from lab.observed.wanted import Wanted
from lab.topology.reader import load
from lab.vocabulary import Behaviour, Family
from lab.watch.host import WatchedHost
from lab.watch.lines import Lines
from lab.watch.screen import WatchApp
from lab.watch.session import End
from lab.watch.watch import Watch

pytestmark = pytest.mark.lab_kernel

PATIENCE = 20.0  # seconds; the end of a wait that an event ends
SIZES = [(80, 24), (120, 40)]
VIP = "192.168.0.2"


@pytest.fixture
def lab():
    with Lab(load("kube-proxy"), family=Family.IPV4) as made:
        yield made


@pytest.fixture
def watch(lab):
    hosts = [
        WatchedHost(name, host.namespace, Behaviour.IGNORES_LATE, services_only=False)
        for name, host in lab.hosts.items()
    ]
    with closing(Watch(hosts)) as made:
        made.owner = None
        yield made


@pytest.fixture
def ask(lab):
    """Connects to the Service, and says something."""
    with ExitStack() as stack:
        with lab.hosts["server"].namespace.entered():
            server = stack.enter_context(socket.create_server(("", 80)))

        def asked(words=b"hello"):
            client = stack.enter_context(lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM))
            client.setblocking(True)
            client.connect((VIP, 80))
            client.send(words)
            stack.enter_context(server.accept()[0])
            return client.getsockname()[1]

        yield asked


def driven(watch, steps, size=(80, 24), seconds=None, wanted=None):
    """Run the program, and what a user does there; return it when it is over."""
    app = WatchApp(watch, "the lab kube-proxy", wanted or Wanted(), seconds, entries_only=False)

    async def run():
        async with app.run_test(size=size) as pilot:
            await steps(app, pilot)

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    return app


def shown(app):
    """Return the screen's lines, as a user sees them."""
    width, height = app.size
    rows = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in row)[:width].rstrip() for row in rows[:height]]


async def until(app, pilot, *words):
    """Wait until all of these are on the screen, and return it."""
    while not all(any(word in line for line in shown(app)) for word in words):
        await pilot.pause(0.02)
    return shown(app)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_flow_is_a_line_with_state_and_translation(watch, ask, size):
    async def steps(app, pilot):
        port = ask()
        screen = await until(app, pilot, f"10.0.0.2:{port} > {VIP}:80 = 10.0.1.2:80", "Quit")
        while len(lines := [line for line in screen if f":{port} >" in line]) > 1:  # packets came before their entry
            await pilot.pause(0.02)
            screen = shown(app)
        assert lines[0].startswith("ESTABLISHED")
        assert "the lab kube-proxy" in screen[0]
        assert all(f" {key} " in screen[-1] for key in ("q", "v", "space", "/", "h", "f"))
        assert "Details" in screen[-1]
        assert max(map(len, screen)) <= size[0]

    driven(watch, steps, size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_packets_and_what_conntrack_tells_of_them_a_line_each(watch, ask, size):
    async def steps(app, pilot):
        port = ask()
        await pilot.press("v")
        screen = await until(app, pilot, f"10.0.0.2:{port} > {VIP}:80 PSH,ACK len 5")
        assert screen[1].startswith("TIME")
        await pilot.press("home")
        await until(app, pilot, "client eth0 >", "server eth0 <")
        await pilot.press("end")
        await until(app, pilot, "node conntrack   update tcp ESTABLISHED")

    driven(watch, steps, size)


def test_words_choose_lines_and_the_details_tell_all(watch, ask):
    async def steps(app, pilot):
        first, second = ask(), ask()
        await until(app, pilot, f":{first} >", f":{second} >")
        await pilot.press("slash", *str(second))
        screen = await until(app, pilot, f"/{second}")
        assert not any(f":{first} >" in line for line in screen)
        await pilot.press("enter", "enter")
        screen = await until(app, pilot, "entry: an entry ESTABLISHED", "at client, node, server")
        await pilot.press("escape")
        await until(app, pilot, f":{first} >")

    driven(watch, steps)


def test_one_flow_and_one_host(watch, ask):
    async def steps(app, pilot):
        first, second = ask(), ask()
        await until(app, pilot, f":{first} >", f":{second} >")
        await pilot.press("home", "f")
        screen = await until(app, pilot, "one flow", "client eth0 >", f":{first} > 10.0.1.2:80")
        assert not any(f":{second}" in line for line in screen)
        await pilot.press("h")
        names = [host.name for host in watch.hosts]
        screen = await until(app, pilot, f"host {names[0]}")
        assert all(names[0] in line for line in screen[2:-1] if line.strip())

    driven(watch, steps)


def test_what_keeps_lines_from_sight_is_told_on_a_narrow_screen(watch, ask):
    async def steps(app, pilot):
        port = ask()
        await until(app, pilot, f":{port} >")
        await pilot.press("home", "f", "h", "slash", *str(port), "enter", "space")
        screen = await until(app, pilot, "PAUSED")
        assert f"/{port} | host {watch.hosts[0].name} | one flow" in screen[0]

    driven(watch, steps, size=(60, 20))


def test_what_is_held_still_stays_and_goes_on_behind(watch, ask):
    async def steps(app, pilot):
        first = ask()
        await until(app, pilot, f":{first} >")
        await pilot.press("space")
        second = ask()
        screen = await until(app, pilot, "PAUSED", " since")
        while "PAUSED, 0 since" in screen[0]:
            await pilot.pause(0.02)
            screen = shown(app)
        assert not any(f":{second} >" in line for line in screen)
        await pilot.press("space")
        await until(app, pilot, f":{second} >")

    driven(watch, steps)


def test_it_scrolls_and_follows_its_end_again(watch, ask):
    async def steps(app, pilot):
        ports = [ask() for _ in range(6)]
        await pilot.press("v")
        await until(app, pilot, f":{ports[-1]} >")
        lines = app.query_one(Lines)
        await pilot.press("home")
        await until(app, pilot, f":{ports[0]} >")
        await pilot.press("pagedown", "up")
        chosen = lines.chosen
        ports.append(ask())
        while not any(flow for _one, flow in lines.items if str(ports[-1]) in str(flow)):
            await pilot.pause(0.02)
        assert lines.chosen == chosen
        await pilot.press("end")
        await until(app, pilot, f":{ports[-1]} >")

    driven(watch, steps)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_a_key_ends_it(watch, key):
    async def steps(app, pilot):
        await until(app, pilot, "Quit")
        await pilot.press(key)

    assert driven(watch, steps).return_value is End.ASKED


def test_it_ends_after_its_time(watch):
    async def steps(app, pilot):
        while app.return_value is None:
            await pilot.pause(0.02)

    assert driven(watch, steps, seconds=watch.seconds + 0.3).return_value is End.TIME


def test_flows_that_are_wanted_alone(watch, ask):
    """By an end that only the translation has."""

    async def steps(app, pilot):
        port = ask()
        await until(app, pilot, f":{port} > {VIP}:80 = 10.0.1.2:80")

    driven(watch, steps, wanted=Wanted.of("10.0.1.2:80"))

    async def none(app, pilot):
        port = ask()
        await pilot.press("v")
        while not any(str(port) in str(flow) for _seen, flow in app.all_seen):
            await pilot.pause(0.02)
        await pilot.press("v")
        assert not any(f":{port} >" in line for line in shown(app))

    driven(watch, none, wanted=Wanted.of("10.9.9.9"))
