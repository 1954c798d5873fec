# SPDX-License-Identifier: MIT
"""The command line itself: one style of help for all commands, and a mistake in it told in one line."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from inspect import cleandoc
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from lab.cli.words import check_behind, check_given
from lab.errors import NO_ANSWER, InputError, misspelt, nearest, told

if TYPE_CHECKING:
    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

Choice = TypeVar("Choice", bound=StrEnum)
Number = TypeVar("Number", int, float)

#: What a mistake in the words of a command is raised as; Typer names only the error that is made from it.
USAGE_ERROR: Final[Any] = typer.BadParameter.__base__

_WIDEST: Final = 80  # columns; longer lines are hard to read
_NARROWEST: Final = 20

_HELP: Final = {"help_option_names": ["-h", "--help"]}


#: How the help writes the value of an option that may stand alone: behind a ``=``, or also as the next word.
ALONE: Final = "[=FILE]"
OR_ALONE: Final = "[FILE]"


class _Fitting:
    """Writes a help that is no wider than the terminal, of whatever width."""

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - click's, which typer brings along
        """Return the help."""
        ctx.terminal_width = max(min(get_terminal_size().columns, _WIDEST) - 2, _NARROWEST)
        text: str = super().get_help(ctx)  # type: ignore[misc]
        return text

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - likewise
        """Write the foot: examples a line each, what is too long goes on below; and other paragraphs filled."""
        lines = _fitting(getattr(self, "epilog", "") or "", formatter.width)
        if lines:
            formatter.write("\n" + "".join(f"{line}\n" for line in lines))


class Command(_Fitting, TyperCommand):
    """A command whose help names each value by one word in capitals, or by the few words that it may be."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's, which typer brings along
        """Read the words behind the command's name; what is wrong with them is this command's mistake."""
        try:
            return super().parse_args(ctx, self._checked(ctx, args))
        except USAGE_ERROR as error:
            error.ctx = error.ctx or ctx
            raise

    def _checked(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - likewise
        """Return the words to be read.

        :raises InputError: some of them would not count, or not as they may be meant.
        """
        parameters = self.get_params(ctx)
        words = _with_places(args, parameters)
        if not ctx.resilient_parsing:  # as completion does, of words that are not all there yet
            parsed, lost, order = self.make_parser(ctx).parse_args(args=list(words))
            check_behind(args[: _end(args)], _alone(parameters), lost)
            check_given(parsed, order)
        return words

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - likewise
        """Return the words behind the command's name: what may be left out is in brackets."""
        return ["[OPTIONS]", *(_usage(one) for one in self.get_params(ctx) if _is_argument(one))]

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - likewise
        """Write the arguments and the options, each section with its title."""
        for title, parameters in self.sections(ctx):
            records = [_record(one, ctx) for one in parameters if not one.hidden]
            if records:
                with formatter.section(_filled(title, formatter.width - 1)):
                    formatter.write_dl(records, col_max=min(30, formatter.width // 2 - 4))

    def sections(self, ctx: Any) -> Iterator[tuple[str, list[Any]]]:  # noqa: ANN401 - likewise
        """Yield the sections of the help."""
        every = self.get_params(ctx)
        yield "Arguments", [one for one in every if _is_argument(one)]
        yield "Options", [one for one in every if not _is_argument(one)]


class Group(_Fitting, TyperGroup):
    """Commands under one name. What is none of them is answered with the one that was probably meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - likewise
        """Find the command that is meant."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = [one for one in self.list_commands(ctx) if not self.commands[one].hidden]
            likely = misspelt(name, known) or f"known: {', '.join(sorted(known))}"  # however many they are
            raise USAGE_ERROR(f"there is no command {name!r} ({likely})", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - likewise
        """Read the words up to the command's name; without one, print what there is."""
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help(), file=sys.stderr)
            raise typer.Exit(NO_ANSWER)
        try:
            return super().parse_args(ctx, args)
        except USAGE_ERROR as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - likewise
        """Run the command; that somebody has gone whom it talked to is no answer of it, as click would have it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise told(error) from error


class App(typer.Typer):
    """Commands of this house."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - typer's
        super().__init__(
            cls=Group,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings=_HELP,
            **settings,
        )

    def command(self, name: str | None = None, **settings: Any) -> Decorator:  # type: ignore[override]  # noqa: ANN401
        """Return the decorator that makes a function a command."""
        return super().command(name, **{"cls": Command, **settings})


def usage_error(error: Any) -> str:  # noqa: ANN401 - a USAGE_ERROR
    """Return a mistake in the words of a command in a line, and in a second one where its help is."""
    parameter, option = getattr(error, "param", None), getattr(error, "option_name", None)
    if parameter is not None and error.message:
        words = f"{_called(parameter)}: {error.message}"
    elif option is not None and hasattr(error, "possibilities"):
        likely = [one for one in error.possibilities or () if one.startswith("--")]
        words = f"there is no option {option}{f' ({nearest(option, likely)})' if likely else ''}"
    else:
        words = error.format_message()
        words = f"{words[0].lower()}{words[1:]}"
    return f"{words.rstrip('.')}\nTry `{error.ctx.command_path} --help`."


def one_of(kind: type[Choice]) -> Callable[[str], Choice]:
    """Return what reads one of a few words.

    :raises BadParameter: by what is returned, for another word.
    """

    def read(given: str) -> Choice:
        if given in list(kind):
            return kind(given)
        raise typer.BadParameter(f"there is no {given!r} ({nearest(given, list(kind))})")

    return read


def at_least(least: Number) -> Callable[[str], Number]:
    """Return what reads a number of the same type that is no smaller.

    :raises BadParameter: by what is returned, for anything else.
    """

    def read(given: str) -> Number:
        try:
            number = type(least)(given)
        except ValueError:
            number = None
        if number is None or not least <= number < float("inf"):
            what = "a whole number" if isinstance(least, int) else "a number"
            raise typer.BadParameter(f"must be {what}, {least:g} or more, not {given!r}")
        return number

    return read


def program_words(words: list[str], behind: str) -> list[str]:
    """Return the words of another program, which stand at the end of a command.

    :param behind: the argument that they stand behind.
    :raises InputError: they begin with an option.
    """
    if words[0] == "--" and len(words) > 1:
        return words[1:]
    if words[0].startswith("-"):
        raise InputError(f"{words[0]!r} is no program", cure=f"options stand before {behind}, a program behind it")
    return words


def _with_places(words: list[str], parameters: list[Any]) -> list[str]:
    """Return the words of a command; an option for a file that stands alone means standard output."""
    alone = _alone(parameters)
    either = {name for one in parameters if one.metavar == OR_ALONE for name in one.opts}
    end = _end(words)
    given = [
        f"{word}=-" if word in alone or (word in either and (after.startswith("-") and after != "-")) else word
        for word, after in itertools.zip_longest(words[:end], words[1:end], fillvalue="--")
    ]
    return given + words[end:]


def _alone(parameters: list[Any]) -> set[str]:
    """Return the options whose value stands behind a ``=`` only."""
    return {name for one in parameters if one.metavar == ALONE for name in one.opts}


def _end(words: list[str]) -> int:
    """Return where a command's own words end, and another program's begin."""
    return words.index("--") if "--" in words else len(words)


def complete_behind(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the word behind an option that stands alone: it is an argument's, where there is one to come."""
    for one in ctx.command.params:
        if _is_argument(one) and (one.nargs == -1 or not ctx.params.get(str(one.name))):
            return [found.value for found in one.shell_complete(ctx, incomplete)]
    return []


def words_of(kind: Collection[str]) -> str:
    """Return how the help writes a value that is one of these words."""
    return "|".join(kind)


def _fitting(epilog: str, width: int) -> list[str]:
    """Return the lines of a help's foot: its examples, which begin with two blanks, stay lines of their own."""
    lines: list[str] = []
    for paragraph in cleandoc(epilog).replace("\b\n", "").split("\n\n"):
        is_list = "\n  " in paragraph
        each = paragraph.splitlines() if is_list else [" ".join(paragraph.split())]
        lines += [
            *([""] if lines else ()),
            *(part for line in each for part in _filled(f"  {line}", width).split("\n")),
        ]
    return lines


def _filled(line: str, width: int) -> str:
    """Return a line in parts that fit, what goes on deeper than it begins; a word that is too long stays whole."""
    indent = line[: len(line) - len(line.lstrip())]
    deeper = f"{indent}  " if indent[2:] else indent
    return textwrap.fill(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=deeper,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _is_argument(parameter: Any) -> bool:  # noqa: ANN401 - click's
    return bool(parameter.param_type_name == "argument")


def _called(parameter: Any) -> str:  # noqa: ANN401 - click's
    """Return what a user knows a parameter by."""
    return str(parameter.metavar or parameter.name) if _is_argument(parameter) else str(parameter.opts[0])


def _usage(argument: Any) -> str:  # noqa: ANN401 - click's
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name if argument.nargs == 1 else f"{name}..."


def _record(parameter: Any, ctx: Any) -> tuple[str, str]:  # noqa: ANN401 - click's
    """Return a line of the help."""
    name, text = parameter.get_help_record(ctx)
    name = name.replace(f" {ALONE}", ALONE)
    if not _is_argument(parameter):
        return name, text
    return parameter.metavar, text.removesuffix("[required]").rstrip()
