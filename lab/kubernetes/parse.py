# SPDX-License-Identifier: MIT
"""Documents become Services and EndpointSlices: one by one, or a ``kind: List`` of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from lab.errors import warn
from lab.kubernetes.errors import spell
from lab.kubernetes.fields import FromList, KubernetesType, Location, Refusals
from lab.kubernetes.objects import EndpointSlice, Service

Parsed = TypeVar("Parsed", bound=BaseModel)


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - anything may stand in a file
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


Unknown = Callable[[Location], None]
"""Called with the path of each field that is not known."""


def _warned(path: Location) -> None:
    warn(f"{spell(path)}: unknown field, left out")


def validated(model: type[Parsed], document: Any, unknown: Unknown) -> Parsed:  # noqa: ANN401
    """Validate a document without its unknown fields. Only one that does not pass is looked at twice: most have none.

    kubectl prints ``endpoints: null`` for an empty slice; as in Kubernetes, null is the same as nothing.
    """
    try:
        return model.model_validate(document)
    except ValidationError:
        document = _without_nulls(document)
    try:
        return model.model_validate(document)
    except ValidationError as invalid:
        paths = [error["loc"] for error in invalid.errors(include_url=False) if error["type"] == "extra_forbidden"]
        if not paths:
            raise
    for path in paths:
        unknown(path)
        place = document
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
    return model.model_validate(document)


def _parse(document: Any, unknown: Unknown = _warned) -> Service | EndpointSlice:  # noqa: ANN401
    models: dict[object, type[Service | EndpointSlice]] = {"Service": Service, "EndpointSlice": EndpointSlice}
    refusals = Refusals()
    if not isinstance(document, dict):
        refusals.add((), "must be a Kubernetes object (a mapping)", document)
    elif not isinstance(kind := document.get("kind"), str) or kind not in models:
        refusals.add(("kind",), "must be Service or EndpointSlice", kind)
    refusals.raise_any("Kubernetes object")
    return validated(models[document["kind"]], document, unknown)


def _parse_item(document: Any, _: ValidatorFunctionWrapHandler) -> Service | EndpointSlice:  # noqa: ANN401
    return _parse(document)


KubernetesObject = Annotated[Service | EndpointSlice, WrapValidator(_parse_item)]
"""Type of a field that holds either object, chosen by ``kind``; errors keep the plain path of the field."""


class ObjectList(KubernetesType):
    """``kind: List``, as ``kubectl get services,endpointslices -o yaml`` prints."""

    api_version: Literal["v1"] = Field(alias="apiVersion")
    kind: Literal["List"]
    metadata: dict[str, Any] = Field(default={})
    items: Annotated[tuple[KubernetesObject, ...], FromList] = ()


def parse_objects(document: Any, unknown: Unknown = _warned) -> tuple[Service | EndpointSlice, ...]:  # noqa: ANN401
    """Validate one document: a Service, an EndpointSlice, or a List of them.

    :param unknown: what is done about an unknown field, which is left out.
    :raises pydantic.ValidationError: for each thing wrong, with the path of the field as ``loc``.
    """
    if isinstance(document, dict) and document.get("kind") == "List":
        return validated(ObjectList, document, unknown).items
    return (_parse(document, unknown),)
