# SPDX-License-Identifier: MIT
"""Options by the dozen: groups that several commands share, and kube-proxy's settings, named as its own flags."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final, get_type_hints

import typer

from lab.cli.arguments import PROGRAM_FLAG, complete
from lab.cli.command import Command
from lab.kubeproxy.said import Settings, from_words
from lab.kubeproxy.settings import SETTINGS, ProxySetting

_FILE: Final = "kube_proxy_config"
_PROGRAM: Final = "--kube-proxy"


class CommandWithSettings(Command):
    """A command whose help has the settings in a section of their own, and which takes them as kube-proxy does.

    kube-proxy's flags that are on or off stand alone for true, and take another value by ``=`` only.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's, which typer brings along
        """Give each flag that stands alone its value."""
        alone = {f"--{row.option}" for row in SETTINGS.values() if not row.metavar}
        end = args.index("--") if "--" in args else len(args)
        given = [f"{word}=true" if word in alone else word for word in args[:end]]
        if any(word == _PROGRAM or word.startswith(f"{_PROGRAM}=") for word in given):
            given = [_alone(word, after) for word, after in itertools.zip_longest(given, given[1:], fillvalue="--")]
            given += [f"{PROGRAM_FLAG}={word}" for word in args[end + 1 :]]
            return super().parse_args(ctx, given)
        return super().parse_args(ctx, given + args[end:])

    def sections(self, ctx: Any) -> Iterator[tuple[str, list[Any]]]:  # noqa: ANN401 - likewise
        """Yield the settings after the other options."""
        settings = {_FILE, *SETTINGS}
        for title, parameters in super().sections(ctx):
            yield title, [one for one in parameters if one.name not in settings]
        its = [one for one in self.get_params(ctx) if one.name in settings]
        yield "Settings of kube-proxy, by its own flags (a flag, then the file, then the topology)", its


def _alone(word: str, after: str) -> str:
    """Return a word; ``--diff`` without a file has an empty one, and means a program's own rules."""
    return f"{word}=" if word == "--diff" and after.startswith("--") else word


def with_settings(fields: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator: a command's parameter ``settings`` becomes an option for each of these fields, and a file's.

    What an option says counts before what the file says. Another parameter that is a dataclass becomes an option for
    each field of that.
    """
    rows = [SETTINGS[field] for field in fields]
    options = [_option(row) for row in rows]
    options.append(
        inspect.Parameter(
            _FILE,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    "--kube-proxy-config", metavar="FILE", help="kube-proxy's own file, a KubeProxyConfiguration."
                ),
            ],
        )
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        grouped = with_groups(command)
        signature = inspect.signature(grouped)
        others = [one for one in signature.parameters.values() if one.name != "settings"]

        @functools.wraps(command)
        def called(**given: Any) -> None:  # noqa: ANN401 - typer's values
            file = given.pop(_FILE)
            words = from_words({row.field: given.pop(row.field) for row in rows})
            grouped(settings=_read(file) + words, **given)

        return _with_parameters(called, signature, [*others, *options])

    return decorate


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with an option for each field of those of its parameters that are dataclasses."""
    signature = inspect.signature(command, eval_str=True, locals={"Settings": Settings})
    own = signature.parameters.values()
    groups: dict[str, Any] = {
        one.name: one.annotation
        for one in own
        if dataclasses.is_dataclass(one.annotation) and one.annotation is not Settings
    }

    @functools.wraps(command)
    def called(**given: Any) -> None:  # noqa: ANN401 - typer's values
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in dataclasses.fields(group)})
        command(**given)

    flat = [one for other in own for one in (_members(groups[other.name]) if other.name in groups else [other])]
    return _with_parameters(called, signature, [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in flat])


def _with_parameters(
    called: Callable[..., None], signature: inspect.Signature, parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called


def _members(group: Any) -> Iterator[inspect.Parameter]:  # noqa: ANN401 - a dataclass
    """Yield a parameter for each field of a group of options."""
    annotations = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        kind = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(field.name, kind, default=field.default, annotation=annotations[field.name])


def _read(file: str | None) -> Settings:
    if file is None:
        return Settings()
    from lab.kubeproxy.configuration import read_configuration

    return read_configuration(file)


def _option(row: ProxySetting) -> inspect.Parameter:
    kind: Any = list[str] | None if row.many else str | None
    option = typer.Option(
        f"--{row.option}",
        metavar=row.metavar or "[=true|false]",
        help=row.what,
        autocompletion=complete(functools.partial(_values, row)),
    )
    return inspect.Parameter(
        row.field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _values(row: ProxySetting) -> tuple[str, ...]:
    """Return the values that a setting may have, where they are few."""
    if not row.metavar:
        return ("true", "false")
    if row.field == "detect_local_mode":
        from lab.kubeproxy.options import DetectLocalMode

        return tuple(DetectLocalMode)
    return ()
