# SPDX-License-Identifier: MIT
"""`lab topology`: how a lab is written down."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.arguments import app, examples
from lab.cli.command import App
from lab.cli.objects import NodesOption, made_of, texts_of
from lab.errors import InputError

topology_app = App(help="Topology files: made of a cluster's objects, and checked by editors.")
app.add_typer(topology_app, name="topology")


@topology_app.command(
    "from",
    short_help="Print the topology that a cluster's objects make.",
    epilog=examples(
        "lab topology from objects.yaml > mine.yaml",
        "lab topology from objects.yaml --nodes nodes.yaml --service shop/web > mine.yaml",
        "kubectl get services,endpointslices,nodes -A -o yaml | lab topology from - > mine.yaml",
        "lab topology from deployment.yaml service.yaml > mine.yaml",
    ),
)
def from_(
    *,
    objects: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Services, and EndpointSlices, Endpoints, Pods or Deployments, as kubectl prints them; - for stdin.",
        ),
    ],
    nodes: NodesOption = None,
    service: Annotated[
        str | None,
        typer.Option(metavar="SERVICE", help="One Service: [NAMESPACE/]NAME. Else the first few."),
    ] = None,
) -> None:
    """Print a topology with a cluster's nodes, its Services and their endpoints, a client on each node and one outside.

    What the objects do not say, the lab gives, and says so on standard error. The file is for `lab reach`, `lab run
    --topology` and `lab up`.
    """
    from lab.topology.cluster import is_called_topology
    from lab.topology.writer import text_of

    texts = texts_of(objects)
    for text, source in texts:
        if is_called_topology(text, source):
            raise InputError(
                "is a topology already", source=source, cure="use it as it is: only objects are made into one"
            )
    made = made_of(texts, nodes, service)
    head = f"Made by `lab topology from` of {', '.join(source for _text, source in texts)}."
    print(text_of(made.topology, [head, *(f"  {note}" for note in made.notes)]), end="")


@topology_app.command("schema", epilog=examples("lab topology schema > topology.schema.json"))
def topology_schema() -> None:
    """Print the JSON Schema of topology files, for editors."""
    import json

    from lab.topology.reader import json_schema

    print(json.dumps(json_schema(), indent=2))
