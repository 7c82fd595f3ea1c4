"""Findings: an autopsy and the batch that it is about, as bounded plain data that JSON can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from toolshed import paths
from toolshed.insight import Autopsy
from toolshed.insight.leaves import NUMBERS, leaf_of
from toolshed.run.events import plain

LINES = 24
"""Lines of an autopsy that are kept."""
TEXT = 200
"""Characters of a line, a path or a name."""
FIELDS = 12
"""Fields of a batch that are described."""
EXAMPLES = 8
"""Examples, operands and names that are listed."""


def findings(autopsy: Autopsy, place: Any, length: int | None = None) -> dict[str, Any]:
    """What an event of the kind ``autopsy`` holds.

    Args:
      autopsy: of a training step.
      place: where its batch was, as a stream's ``state`` gives it.
      length: batches in an epoch, where that is known.

    Returns:
      ``headline`` and ``lines``, in words; ``primitive``, ``phase``, ``source`` (file, line, function,
      text), ``operands``, ``index``, ``near`` and ``reaches``; and ``batch``: where it was, its fields with
      type, extremes and counts, and the examples that hold what is not finite.
    """
    fault = autopsy.fault
    lines = [_clip(line) for line in repr(autopsy).splitlines()]
    source = None if fault is None else fault.source
    return {
        "headline": _clip(lines[0] if fault is None else fault.headline),
        "lines": lines[:LINES],
        "primitive": "" if fault is None else fault.primitive,
        "phase": "" if fault is None else fault.phase,
        "index": [] if fault is None else list(fault.index),
        "source": None if source is None else _source(source),
        "operands": [] if fault is None else [_clip(str(one)) for one in fault.operands[:EXAMPLES]],
        "near": [] if fault is None else [_clip(name) for name in fault.near[:EXAMPLES]],
        "reaches": [_clip(name) for name in autopsy.reaches[:EXAMPLES]],
        "batch": _batch(autopsy, _place(place, length)),
    }


def sentence(found: Mapping[str, Any]) -> str:
    """The findings in one line: what happened, and in which line of whose code."""
    source = found["source"]
    where = "" if source is None else f", at {source['file']}:{source['line']} in {source['function']}"
    return f"{found['headline']}{where}"


def _source(source: Any) -> dict[str, Any]:
    file = source.file if source.file.startswith("<") else source.file.replace("\\", "/").rpartition("/")[2]
    words = {"file": file, "function": source.function, "text": source.text}
    return {"line": source.line, **{name: _clip(word) for name, word in words.items()}}


def _batch(autopsy: Autopsy, place: str) -> dict[str, Any]:
    """Where the batch was, what it holds, and which of its examples are to blame."""
    leaves = paths.flatten(dict(autopsy.batch or {}))
    sizes = [shape[0] for shape in map(np.shape, leaves.values()) if shape]
    size = max(sizes, default=0)
    return {
        "place": place,
        "size": size,
        "fields": [_field(path, leaf) for path, leaf in list(leaves.items())[:FIELDS]],
        "left_out": max(len(leaves) - FIELDS, 0),
        "examples": _examples_of(autopsy, size),
    }


def _place(place: Any, length: int | None) -> str:
    """Where a batch was, in words, as far as the stream tells."""
    known = place if isinstance(place, Mapping) else {}
    position, epoch, index = (known.get(name) for name in ("position", "epoch", "index"))
    if length and isinstance(position, int):
        epoch, index = divmod(position, length)
    if isinstance(epoch, int) and isinstance(index, int):
        return f"batch {index + 1:,} of epoch {epoch + 1:,}"
    return f"batch {position + 1:,}" if isinstance(position, int) else ""


def _field(path: str, leaf: Any) -> dict[str, Any]:
    """One field of a batch: its type, the extremes of its finite values, and what is not finite in it."""
    one = leaf_of(leaf)
    known = {"path": _clip(path), "type": _clip(one.description)}
    if one.kind != NUMBERS or one.array.dtype.kind == "c":
        return {**known, "min": None, "max": None, "nan": 0, "infinite": 0, "examples": [], "bad": 0}
    array = np.asarray(one.array)
    if jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(np.promote_types(np.float32, array.dtype) if array.dtype.kind == "f" else "f4")
    finite = np.isfinite(array)
    values = array[finite]
    rows = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1)) if array.ndim else np.zeros(0, int)
    return {
        **known,
        "min": plain(float(values.min())) if values.size else None,
        "max": plain(float(values.max())) if values.size else None,
        "nan": int(np.isnan(array).sum()),
        "infinite": int(np.isinf(array).sum()),
        "examples": rows[:EXAMPLES].tolist(),
        "bad": len(rows),
    }


def _examples_of(autopsy: Autopsy, size: int) -> list[int]:
    """The examples that an operation's result is not finite for, if its first axis is that of the batch."""
    fault = autopsy.fault
    if fault is None or not fault.index or fault.primitive == "input" or fault.iterations:
        return []
    first = re.search(r"\[(\d+)", fault.result)
    if first is None or int(first[1]) != size:
        return []
    return sorted({index[0] for index in fault.indices})[:EXAMPLES]


def _clip(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"
