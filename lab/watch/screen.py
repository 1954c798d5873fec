# SPDX-License-Identifier: MIT
"""The full-screen program: flows or packets as they come, chosen, held still, and looked at one by one."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual.app import App
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Footer, Input, Static

from lab.evidence.sighting import Sighting
from lab.observed.answer import duration, many
from lab.observed.flows import Flow, Flows
from lab.observed.lines import Seen, Told
from lab.observed.rows import FLOW_HEAD, PACKET_HEAD, flow_details, flow_row, packet_details, packet_row
from lab.watch.lines import Lines
from lab.watch.session import End
from lab.watch.watch import TURN

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from lab.observed.wanted import Wanted
    from lab.watch.watch import Watch

_KEPT: Final = 5_000  # packets and events that can be scrolled back to
_DRAWN: Final = 0.2  # seconds between two drawings

#: A packet or an event, and its flow; or a flow alone.
_Row = tuple[Seen | None, Flow]


def show(watch: Watch, what: str, wanted: Wanted, seconds: float | None) -> End:
    """Show what is seen, full screen, until it is over, and return why.

    :param what: is watched.
    :param seconds: after which it is over; None for never.
    :raises OSError: what is to be saved or published cannot be written.
    """
    program = WatchApp(watch, what, wanted, seconds, entries_only=watch.owner is None)
    end = program.run()
    if program.failure is not None:
        raise program.failure
    return end or End.ASKED


class WatchApp(App[End]):
    """What is watched, on a terminal.

    :param entries_only: shows only flows of which conntrack tells, so that it does not show its own terminal's.
    :ivar failure: why it ended, where that is an error.
    :ivar all_seen: packets and events with their flows, as far back as one can scroll.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "lab watch"
    CSS = """
    #title { height: 1; background: $primary; color: $text; text-style: bold; }
    #head { height: 1; color: $text-muted; text-style: bold; }
    Lines { height: 1fr; scrollbar-size: 1 1; overflow-x: hidden; }
    Lines > .lines--leak { color: $error; text-style: bold; }
    Lines > .lines--event { color: $text-muted; }
    Lines > .lines--cursor { text-style: reverse; }
    #details { height: 8; border-top: solid $primary; display: none; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "Quit"),
        Binding("ctrl+c", "leave", "Quit", show=False, priority=True),
        Binding("v", "view", "Flows/packets"),
        Binding("space", "pause", "Pause"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("h", "host", "Host"),
        Binding("f", "flow", "This flow"),
        Binding("enter", "details", "Details"),
        Binding("escape", "show_all", "All", show=False),
    ]

    def __init__(self, watch: Watch, what: str, wanted: Wanted, seconds: float | None, *, entries_only: bool) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._watch, self._what, self._wanted, self._seconds = watch, what, wanted, seconds
        self._flows = Flows(entries_only=entries_only)
        self.all_seen: deque[tuple[Seen, Flow]] = deque(maxlen=_KEPT)
        self._shows_flows, self._paused, self._changed, self._since_pause = True, False, True, 0
        self._text = self._host = ""
        self._lines: Lines[_Row] = Lines(self._drawn)
        self._title_line, self._told = Static(id="title", markup=False), Static(markup=False)
        self._head = Static(FLOW_HEAD, id="head", markup=False)
        self._details = VerticalScroll(id="details", can_focus=False)
        words = "address, port, state, host, LEAK ...; Enter keeps it, Esc clears it"
        self._filter = Input(placeholder=words, id="filter")
        self._only: Flow | None = None

    def compose(self) -> ComposeResult:
        """Yield the parts of the screen, from above."""
        yield self._title_line
        yield self._head
        yield self._lines
        with self._details:
            yield self._told
        yield self._filter
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self._lines.focus()
        loop = asyncio.get_running_loop()
        for number in self._watch.filenos():
            loop.add_reader(number, self._pull)
        if self._watch.owner is not None:
            loop.add_reader(self._watch.owner, self._over, End.LAB)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._over, End.ASKED)
        self.set_interval(TURN / 4, self._pull)
        self.set_interval(_DRAWN, self._draw)
        if self._seconds is not None:
            self.set_timer(max(0.0, self._seconds - self._watch.seconds), lambda: self._over(End.TIME))

    def _over(self, end: End | None, failure: BaseException | None = None) -> None:
        loop = asyncio.get_running_loop()
        for number in (*self._watch.filenos(), *(() if self._watch.owner is None else (self._watch.owner,))):
            loop.remove_reader(number)
        self.failure = self.failure or failure
        self.exit(end)

    def _pull(self) -> None:
        """Take what has come."""
        try:
            seen = self._watch.read()
        except Exception as error:
            self._over(None, error)
            return
        for one in seen:
            flow = self._flows.take(one)
            if flow is not None:
                self.all_seen.append((one, flow))
                self._changed = True
                self._since_pause += self._paused

    def _draw(self) -> None:
        if self._changed and not self._paused:
            self._changed = False
            self._lines.show_items(self._rows())
            self._tell()
        self._title_line.update(self._title())

    def _rows(self) -> list[_Row]:
        if self._shows_flows:
            return [(None, flow) for flow in self._flows if self._is_chosen(None, flow)]
        return [(one, flow.whole) for one, flow in self.all_seen if self._is_chosen(one, flow.whole)]

    def _is_chosen(self, one: Seen | None, flow: Flow) -> bool:
        if (self._only is not None and flow is not self._only) or not self._wanted.has(flow):
            return False
        if self._host and self._host not in (flow.hosts if one is None else (_host(one),)):
            return False
        if not self._text:
            return True
        text = flow_row(flow) if one is None else f"{packet_row(one)} {flow}"
        return all(word in text.casefold() for word in self._text.casefold().split())

    def _drawn(self, row: _Row) -> tuple[str, str]:
        one, flow = row
        if one is None:
            return flow_row(flow), "leak" if flow.leaks or flow.resets else ""
        if isinstance(one, Sighting):
            return packet_row(one), ""
        return packet_row(one), "event" if isinstance(one, Told) else "leak"

    def _title(self) -> str:
        tally = self._watch.tally
        missed = tally.missed
        left = "" if self._seconds is None else f"{duration(max(0.0, round(self._seconds - self._watch.seconds)))} left"
        parts = (  # what keeps lines from sight stands first: a narrow screen cuts the rest
            f"PAUSED, {self._since_pause:,} since" if self._paused else "",
            f"/{self._text}" if self._text else "",
            f"host {self._host}" if self._host else "",
            "one flow" if self._only is not None else "",
            f"{many(tally.total('leaks'), 'leak')}, {many(tally.total('resets'), 'reset')}",
            "BUSY: plain data is left out" if self._watch.lean else "",
            f"MISSED {missed.packets:,} packets, events {missed.events:,}x" if missed else "",
            f"{missed.data:,} of data not seen" if missed.data else "",
            *(f"{error.place} NOT WRITTEN" for error in self._watch.unwritten),
            left,
            self._what,
        )
        return " " + " | ".join(part for part in parts if part)

    def _tell(self) -> None:
        row = self._lines.chosen
        told = ["nothing is chosen"]
        if row is not None:
            one, flow = row
            told = list(flow_details(flow) if one is None else packet_details(one, flow))
        self._told.update("\n".join(told))

    def on_lines_moved(self) -> None:
        """Tell of the item that is chosen now."""
        self._tell()

    def action_leave(self) -> None:
        """End."""
        self._over(End.ASKED)

    def action_view(self) -> None:
        """Show packets instead of flows, or flows again."""
        self._shows_flows = not self._shows_flows
        self._head.update(FLOW_HEAD if self._shows_flows else PACKET_HEAD)
        self._lines.follows = True
        self._again()

    def action_pause(self) -> None:
        """Hold the screen still, or go on; what is counted, saved and published goes on all the while."""
        self._paused, self._since_pause = not self._paused, 0
        self._changed = True
        self._draw()

    def action_filter(self) -> None:
        """Ask for words that lines have to have."""
        self._filter.display = True
        self._filter.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the lines that have these words."""
        self._text = event.value
        self._again()

    def on_input_submitted(self) -> None:
        """Keep the filter, and go back to the lines."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self._filter.display = False
        self._lines.focus()

    def action_host(self) -> None:
        """Show what one host sees: the next of them, and after the last all again."""
        names = ["", *(host.name for host in self._watch.hosts)]
        self._host = names[(names.index(self._host) + 1) % len(names)]
        self._again()

    def action_flow(self) -> None:
        """Show the flow alone that is chosen, packet by packet; or all again."""
        row = self._lines.chosen
        if self._only is None and row is not None:
            self._only = row[1]
            if self._shows_flows:
                self.action_view()
        else:
            self._only = None
        self._again()

    def action_details(self) -> None:
        """Tell all of what is chosen below the lines, or no longer."""
        self._details.display = not self._details.display
        self._tell()

    def action_show_all(self) -> None:
        """Clear the filter and what else was chosen."""
        self._filter.value = ""
        self._leave_filter()
        self._host, self._only = "", None
        self._details.display = False
        self._again()

    def _again(self) -> None:
        """Draw at once what is chosen now, also while the screen is held still."""
        self._lines.show_items(self._rows())
        self._tell()
        self._title_line.update(self._title())


def _host(one: Any) -> str:  # noqa: ANN401 - of a packet, an event or a finding
    return str((one if isinstance(one, Sighting | Told) else one.sighting).host)
