"""How two trees differ beside their leaves: in the classes of their nodes and in what is static."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from toolshed import paths
from toolshed.state import describe_optimizer

_LONGEST = 60


class Mismatch(NamedTuple):
    """One node that differs: where, in what, and what it is on either side, in a word."""

    path: str
    what: str
    a: str
    b: str


def mismatches(a: Any, b: Any, path: str = "") -> Iterator[Mismatch]:
    """The nodes that both trees have and that are of different classes or hold other static values."""
    below_a, below_b = paths.children(a), paths.children(b)
    if not below_a or not below_b:
        return
    if type(a) is not type(b):
        yield Mismatch(path, "type", type(a).__name__, type(b).__name__)
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            if not field.metadata.get("pytree_node", True):
                old, new = getattr(a, field.name), getattr(b, field.name)
                if not _equal(old, new):
                    where = f"{path}/{field.name}" if path else field.name
                    yield Mismatch(where, "static", short(old), short(new))
    for key, child in below_a.items():
        if key in below_b:
            yield from mismatches(child, below_b[key], f"{path}/{key}" if path else key)


def short(value: Any) -> str:
    """A static value, or any object, in one line."""
    if _is_optimizer(value):
        return describe_optimizer(value)
    text = getattr(value, "__qualname__", None) or " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _is_optimizer(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def _equal(a: Any, b: Any) -> bool:
    """True if two static values are the same: functions by their code, optimisers by their description."""
    if a is b:
        return True
    if _is_optimizer(a) and _is_optimizer(b):
        return describe_optimizer(a) == describe_optimizer(b)
    code = getattr(a, "__code__", None)
    if code is not None and code == getattr(b, "__code__", None):
        return True
    try:
        return bool(a == b)
    except (TypeError, ValueError):  # an array answers value by value
        return False
