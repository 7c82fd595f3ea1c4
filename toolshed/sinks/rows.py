"""Rows: values as most tools take them, all of one step together."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from toolshed.errors import ToolshedError
from toolshed.store import Block

_AT_ONCE = 16  # rows between two moments in which other threads come first
_MOMENT = 1e-4  # seconds


class Row(NamedTuple):
    """The values of one step on one branch, by name."""

    branch: str
    step: int
    values: dict[str, float]


def rows(blocks: Iterable[Block]) -> Iterator[Row]:
    """The values of some blocks, step by step, branch by branch.

    It lets other threads come first every now and then, for whoever takes the rows is in no hurry, and a
    training may be.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    for block in blocks:
        steps = found.setdefault(block.branch, {})
        for step, value in zip(block.steps.tolist(), block.values.tolist(), strict=True):
            steps.setdefault(step, {})[block.name] = value
    for branch, steps in found.items():
        for number, step in enumerate(sorted(steps)):
            if number % _AT_ONCE == 0:
                time.sleep(_MOMENT)
            yield Row(branch, step, steps[step])


def config_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """How a run was made: what was given as its ``config``, and all else under ``toolshed``."""
    made = dict(facts.get("config") or {})
    return {**(made.pop("config", None) or {}), "toolshed": made}


def load(module: str, tool: str, extra: str) -> Any:
    """A package that is needed only where its sink is used.

    Args:
      module: to be imported.
      tool: what it is called.
      extra: of this package, that brings it.

    Raises:
      ToolshedError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ToolshedError(f"{tool} is not installed: pip install 'jax-toolshed[{extra}]'.") from error
