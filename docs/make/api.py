"""Makes docs/api.md of the names in lab/__init__.py and of what they say of themselves.

::

    python docs/make/api.py > docs/api.md
"""

from __future__ import annotations

import inspect
import re
from enum import Enum
from typing import Any

import lab
from lab.conntrack.flows import Flows
from lab.fabric.endpoints import Endpoints
from lab.fabric.services import Services
from lab.plugin.host_rules import HostRules
from lab.plugin.running_lab import RunningLab

_GROUPS = {
    "A case of your own": (
        "Case",
        "ConnectionScenario",
        "ScriptedScenario",
        "Judgement",
        "Outcome",
        "Elsewhere",
        "Expectation",
        "row",
        "on_every_kernel",
    ),
    "A fix of your own": ("Fix", "NodeChange", "Protection"),
    "A trial from a script": ("load_topology", "ask_kernel", "Setting", "run_trial", "Result", "Lab"),
    "What all of them share": ("Behaviour", "Family", "LabError"),
}

_INTRODUCTION = """\
# The names in `lab`

What a case, a fix, a test or a script of your own needs: `from lab import Case, row, ...`. Nothing is imported before
it is asked for. Everything else in the package may change with any release.

[own-case.md](own-case.md) writes a case and a fix with them, step by step. In pytest the fixtures `lab_trial` and
`lab_running` do the rest, and take names as well as objects.

```python
import asyncio

from lab import Family, Setting, ask_kernel, load_topology, run_trial
from lab.cases import find as find_case
from lab.fixes import find as find_fix


async def main() -> None:
    setting = Setting(find_case("beyond-window"), find_fix("none"), load_topology("kube-proxy"), Family.IPV4)
    result = await run_trial(setting, await ask_kernel(Family.IPV4))
    print(result.verdict.outcome, *result.verdict.because, sep="; ")


asyncio.run(main())
```

It wants root, or a kernel that lets its users make namespaces (`lab doctor` tells).

This page is made by `python docs/make/api.py > docs/api.md`.
"""


#: What the plugin does with a lab, and no test has a use for.
_OF_THE_PLUGIN = {(RunningLab, name) for name in ("use", "keep", "keep_standing", "shell", "close")}


def main() -> None:
    names = [name for group in _GROUPS.values() for name in group]
    assert sorted(names) == sorted(set(lab.__all__) - {"__version__"}), "a name has no group"
    print(_INTRODUCTION)
    for title, group in _GROUPS.items():
        print(f"## {title}\n")
        for name in group:
            print(*_entry(name, getattr(lab, name)), sep="\n\n", end="\n\n")
    print("## What the fixture `lab_running` gives\n")
    for thing in (RunningLab, Endpoints, Services, Flows, HostRules):
        print(*_entry(thing.__name__, thing), sep="\n\n", end="\n\n")
    print("`lab.__version__` is the installed distribution's version.")


def _entry(name: str, thing: Any) -> list[str]:
    parts = [f"### {name}", f"```python\n{_called(name, thing)}\n```", _words(thing)]
    if isinstance(thing, type) and not issubclass(thing, Exception | Enum):
        if methods := list(_methods(thing)):
            parts.append("\n".join(methods))
    elif isinstance(thing, type) and issubclass(thing, Enum):
        parts.append("One of: " + ", ".join(f"`{one.name}`" for one in thing) + ".")
    return parts


def _called(name: str, thing: Any) -> str:
    """Return how it is called, a parameter a line where there are many."""
    if isinstance(thing, type) and issubclass(thing, Enum | Exception):
        return f"class {name}({', '.join(base.__name__ for base in thing.__bases__)})"
    signature = inspect.signature(thing)
    parameters = list(map(_parameter, signature.parameters.values()))
    returned = signature.return_annotation
    back = "" if isinstance(thing, type) or returned is inspect.Signature.empty else f" -> {returned}"
    kind = "async " * inspect.iscoroutinefunction(thing)
    marked = list(_with_marks(signature, parameters))
    line = f"{kind}{name}({', '.join(marked)}){back}"
    if len(line) <= 100:
        return line
    return f"{kind}{name}(\n" + "".join(f"    {one},\n" for one in marked) + f"){back}"


def _with_marks(signature: inspect.Signature, parameters: list[str]) -> list[str]:
    found: list[str] = []
    for one, text in zip(signature.parameters.values(), parameters, strict=True):
        if one.kind is one.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        found.append(text)
    return found


def _parameter(one: inspect.Parameter) -> str:
    text = f"{one.name}: {one.annotation}" if one.annotation is not inspect.Parameter.empty else one.name
    if one.default is inspect.Parameter.empty:
        return text
    default = one.default
    if callable(default):  # a class or a function that is taken unless another is given
        return f"{text} = {default.__name__ if default.__name__ in lab.__all__ else '...'}"
    plain = repr(default) if isinstance(default, str | bytes | int | tuple | None | Enum) else "..."
    return f"{text} = {plain if '0x' not in plain and '<' not in plain else '...'}"


def _words(thing: Any) -> str:
    """Return what it says of itself, with reStructuredText's roles and fields as Markdown."""
    lines = []
    for line in inspect.cleandoc(thing.__doc__ or "").splitlines():
        if field := re.match(r":(?:param|ivar|raises) ([^:]+): ?(.*)", line):
            lines.append(f"* `{field[1]}`: {field[2]}")
        else:
            lines.append(re.sub(r"^    ", "  ", line))
    text = "\n".join(lines)
    text = re.sub(r":(?:class|func|meth|mod|attr):`~?(?:lab\.)?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def _methods(thing: type) -> list[str]:
    """Return a line for each public method and property, those of its bases in the lab as well."""
    found: dict[str, str] = {}
    for of in reversed(thing.__mro__):
        if not of.__module__.startswith("lab."):
            continue
        for name, member in vars(of).items():
            if (thing, name) in _OF_THE_PLUGIN:
                continue
            called = f"`{name}`" if isinstance(member, property) or not callable(member) else f"`{name}()`"
            doc = inspect.getdoc(member)
            if name in getattr(thing, "__dataclass_fields__", ()):
                continue
            if not name.startswith("_") and doc and (callable(member) or hasattr(member, "__get__")):
                found[name] = f"* {called}: {_words(member).split(chr(10) * 2)[0].replace(chr(10), ' ')}"
    return list(found.values())


if __name__ == "__main__":
    main()
