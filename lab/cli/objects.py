# SPDX-License-Identifier: MIT
"""A cluster's objects, as commands are told of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import service_option
from lab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.topology.from_objects import Made

NodesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--nodes",
        metavar="FILE",
        help="With objects: what kubectl get nodes -o yaml prints. Else the objects say which nodes there are.",
    ),
]


def texts_of(references: Sequence[str]) -> list[tuple[str, str]]:
    """Read several files, each with its name.

    :raises InputError: one cannot be read, or is given twice.
    """
    from lab.topology.reader import read

    for number, reference in enumerate(references):
        if reference in references[:number]:
            raise InputError("given twice", source=reference, cure="give it once")
    return [read(one) for one in references]


def made_of(texts: Sequence[tuple[str, str]], nodes: Sequence[str] | None, service: str | None) -> Made:
    """Return the topology that objects make, and tell on standard error what was chosen or given.

    :param texts: each with its name; ``nodes`` are files.
    :raises InputError: none can be made of them.
    """
    from lab.topology.cluster import read_cluster
    from lab.topology.from_objects import topology_of

    if twice := next((source for _text, source in texts if source in (nodes or ())), None):
        raise InputError("given twice", source=twice, cure="give it once")
    of_nodes = texts_of(nodes or ())
    cluster = read_cluster([*texts, *of_nodes])
    having = {one.where.source for one in cluster.nodes}
    for _text, source in of_nodes:
        if source not in having:
            cure = "give what `kubectl get nodes -o yaml` prints"
            raise InputError("there is no Node in it", source=source, cure=cure)
    with service_option():
        made = topology_of(cluster, service, [source for _text, source in texts])
    for note in made.notes:
        print(f"lab: {note}", file=sys.stderr)
    return made
