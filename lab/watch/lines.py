# SPDX-License-Identifier: MIT
"""A list for the screen that only draws what is to be seen of it, with a cursor; it follows its end unless told."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar

from rich.segment import Segment
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.style import Style
    from textual import events
    from textual.binding import BindingType

Item = TypeVar("Item")

_WIDEST: Final = 1_000  # columns


class Lines(ScrollView, Generic[Item], can_focus=True):
    """Items, a line each.

    :param drawn: returns an item's text, and the name of its style.
    :ivar follows: whether the cursor stays at the end, where new items come.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--leak", "lines--event", "lines--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "first", "First", show=False),
        Binding("end,G", "last", "Last", show=False),
    ]

    class Moved(Message):
        """Another item is chosen."""

    def __init__(self, drawn: Callable[[Item], tuple[str, str]]) -> None:
        super().__init__()
        self._drawn = drawn
        self._items: list[Item] = []
        self._cursor = 0
        self.follows = True

    @property
    def chosen(self) -> Item | None:
        """The item under the cursor; None where there is none."""
        return self._items[self._cursor] if self._cursor < len(self._items) else None

    @property
    def items(self) -> list[Item]:
        """The items, which are not to be changed."""
        return self._items

    def show_items(self, items: list[Item]) -> None:
        """Show other items; the one that was chosen stays so where it is among them."""
        before = self.chosen
        self._items = items
        if self.follows:
            self._cursor = max(0, len(items) - 1)
        elif before is not None:
            self._cursor = next((at for at, item in enumerate(items) if item == before), self._cursor)
            self._cursor = max(0, min(self._cursor, len(items) - 1))
        self.virtual_size = Size(_WIDEST, len(items))
        self._reveal()
        self.call_after_refresh(self._reveal)  # by the new height of all

    def choose(self, place: int) -> None:
        """Put the cursor to a place, or as near as there is an item."""
        self._cursor = max(0, min(place, len(self._items) - 1))
        self.follows = self._cursor == len(self._items) - 1
        self._reveal()
        self.post_message(self.Moved())

    def _reveal(self) -> None:
        top, height = self.scroll_offset.y, max(1, self.scrollable_content_region.height)
        if self._cursor < top or self.follows:
            top = min(top, self._cursor) if self._cursor < top else max(top, self._cursor - height + 1)
        elif self._cursor >= top + height:
            top = self._cursor - height + 1
        self.scroll_to(y=max(0, top), animate=False, immediate=True)
        self.refresh()

    def action_move(self, by: int) -> None:
        """Move the cursor by some lines."""
        self.choose(self._cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by some screens."""
        self.choose(self._cursor + by * max(1, self.scrollable_content_region.height - 1))

    def action_first(self) -> None:
        """Move the cursor to the first item."""
        self.choose(0)

    def action_last(self) -> None:
        """Move the cursor to the last item, and follow what comes."""
        self.choose(len(self._items) - 1)

    def on_click(self, event: events.Click) -> None:
        """Choose the item that was clicked."""
        self.choose(self.scroll_offset.y + event.y)

    def on_resize(self) -> None:
        """Keep the cursor in sight."""
        self._reveal()

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        left, top = self.scroll_offset
        at = top + y
        width = self.size.width
        if at >= len(self._items):
            return Strip.blank(width, self.rich_style)
        text, name = self._drawn(self._items[at])
        style: Style = self.get_component_rich_style(f"lines--{name}") if name else self.rich_style
        if at == self._cursor and self.has_focus:
            style += self.get_component_rich_style("lines--cursor")
        return Strip([Segment(text.ljust(left + width), style)]).crop(left, left + width)
