"""A Python that has the slow modules in it already, and becomes `python ARGUMENTS` when it is asked.

Nearly all that a short command costs is importing scapy, pyroute2, pydantic, pytest and the project's own modules.
Tests call hundreds of commands, so this process imports them once, waits on a socket, and forks for each command: what
runs is the program itself, in a process of its own, with the arguments, environment, directory and descriptors that it
was given. What a command imports, and what that costs, is for tests that start a Python of their own.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import sys
import threading
import types
from typing import NoReturn, TypedDict

import lab

MODULES = (
    "asyncio", "concurrent.futures", "email.message", "jinja2", "multiprocessing", "pydantic", "pyroute2", "pytest",
    "rich.console", "rich.progress", "rich.table", "scapy.layers.inet", "scapy.layers.inet6", "scapy.layers.l2",
    "sqlite3", "typer", "unittest.mock", "yaml",
)  # fmt: skip


def main() -> None:
    server = socket.socket(fileno=int(sys.argv[1]))
    for module in MODULES:
        with contextlib.suppress(ImportError):  # a command that needs it will say so
            importlib.import_module(module)
    for found in pkgutil.walk_packages(lab.__path__, "lab."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    gc.collect()
    gc.freeze()  # or a child's first collection would copy every page
    server.send(b"ready")
    while True:
        message, ancillary, _flags, _address = server.recvmsg(1 << 20, socket.CMSG_SPACE(3 * array.array("i").itemsize))
        if not message:
            return
        streams = array.array("i")
        for _level, _kind, data in ancillary:
            streams.frombytes(data)
        child = os.fork()
        if child == 0:
            server.close()
            end(json.loads(message), streams.tolist())
        for stream in streams:
            os.close(stream)
        server.send(str(child).encode())
        _child, status = os.waitpid(child, 0)
        server.send(str(os.waitstatus_to_exitcode(status)).encode())


class Asked(TypedDict):
    """What :mod:`tests.support.command` sends: beside it come the three standard streams."""

    command: list[str]
    directory: str
    environment: dict[str, str]


def become(asked: Asked, streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.path[0] = os.getcwd()
    kind, *words = asked["command"]
    if kind == "-m":
        if words[0] == "pytest":
            lab.__doc__ = "PYTEST_DONT_REWRITE"  # or it warns that it cannot any more
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = [kind, *words[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(words[0], "<string>", "exec"), main.__dict__)
    else:
        sys.path[0] = os.path.dirname(kind)
        sys.argv = [kind, *words]
        runpy.run_path(kind, run_name="__main__")


def end(asked: Asked, streams: list[int]) -> NoReturn:
    """Become it and end the process as Python does, but for taking its modules apart: a third of the time."""
    code = 0
    try:
        become(asked, streams)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as Python itself does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


main()
