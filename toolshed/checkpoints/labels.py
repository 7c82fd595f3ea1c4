"""What people attach to a checkpoint: tags, metadata, metrics. All of it is text and numbers, nothing else.

None of it ever becomes part of a file's name. It is checked where it comes in, from a caller or from a
file that a stranger wrote, so that what is in a manifest can always be shown and written again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from toolshed import paths
from toolshed.errors import CheckpointError

LATEST, BEST = "latest", "best"
MAX_JSON = 16_000_000  # characters that metadata or a data position may take

_MAX_NAME = 100
_MAX_DEPTH = 32
_LARGEST = 2**64


def check_tags(tags: Any) -> tuple[str, ...]:
    """Tags in their order, each once. One string is one tag.

    Raises:
      CheckpointError: one is no text of 1 to 100 printable characters, or means something else already.
    """
    if isinstance(tags, str):
        tags = (tags,)
    if not isinstance(tags, Iterable) or isinstance(tags, (Mapping, bytes)):
        raise CheckpointError(f"Expected tags as a list of words, got {paths.describe(tags)}.")
    found = [_check_name("tag", tag) for tag in tags]
    for tag in found:
        if tag == LATEST or tag.isdecimal():
            meaning = "the checkpoint written last" if tag == LATEST else "a step"
            raise CheckpointError(f"The tag {tag!r} means {meaning} already. Choose another word.")
    return tuple(dict.fromkeys(found))


def check_metrics(metrics: Any) -> dict[str, Any]:
    """Metrics by name, the values as they came: a device is not waited for.

    Raises:
      CheckpointError: a name is no short text, or a value is no number.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise CheckpointError(f"Expected metrics as a dict of numbers, got {paths.describe(metrics)}.")
    for name, value in metrics.items():
        _check_name("metric", name)
        is_number = isinstance(value, (int, float)) or getattr(value, "shape", None) == ()
        if not is_number or getattr(getattr(value, "dtype", None), "kind", "f") in "OSUMmc":
            raise CheckpointError(
                f"The metric {name!r} is {paths.describe(value)}; expected a number. Leave it out, or put"
                " it in the metadata as a list."
            )
    return dict(metrics)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics as floats; waits for the device."""
    return {name: float(np.asarray(value)) for name, value in metrics.items()}


def check_json(where: str, value: Any) -> Any:
    """A copy of a value that JSON can hold and gives back the same; numpy's numbers become Python's.

    Args:
      where: what to call the value in an error.
      value: None, text, finite numbers, and lists and dicts of these.

    Raises:
      CheckpointError: something else is in it, or it is too deep or too large; its place is named.
    """
    plain = _plain(where, value, 0)
    size = len(json.dumps(plain))
    if size > MAX_JSON:
        raise CheckpointError(f"{where} takes {size:,} characters as JSON; at most {MAX_JSON:,} are kept.")
    return plain


def check_dict(where: str, value: Any) -> dict[str, Any]:
    """A copy of a dict that JSON can hold; empty for None. The errors are those of `check_json`."""
    if value is not None and not isinstance(value, Mapping):
        raise CheckpointError(f"Expected {where} as a dict, got {paths.describe(value)}.")
    return check_json(where, value or {})


def _plain(where: str, value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"{where} is nested more than {_MAX_DEPTH} deep.")
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _check_text(where, value)
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise CheckpointError(f"{where} is a number of more than 64 bits. Write it as text.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CheckpointError(f"{where} is {value}, which JSON has no number for. Write it as text.")
        return float(value)
    if isinstance(value, Mapping):
        return {
            _check_key(where, key): _plain(f"{where}/{key}", item, depth + 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(f"{where}/{i}", item, depth + 1) for i, item in enumerate(value)]
    raise CheckpointError(
        f"{where} is {paths.describe(value)}; expected text, numbers, and lists and dicts of them."
    )


def _check_key(where: str, key: Any) -> str:
    if not isinstance(key, str):
        raise CheckpointError(f"{where} has the key {key!r}; expected text.")
    return _check_text(f"A key of {where}", key)


def _check_text(where: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CheckpointError(f"{where} is {text[:40]!r}, which is no valid Unicode text.") from None
    return str(text)


def _check_name(kind: str, name: Any) -> str:
    if not isinstance(name, str):
        raise CheckpointError(f"Expected a {kind} as text, got {paths.describe(name)}.")
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or name != name.strip():
        shown = f"{name[:40]!r}{'…' if len(name) > 40 else ''}"
        raise CheckpointError(
            f"The {kind} {shown} has {len(name)} characters; expected 1 to {_MAX_NAME} printable ones, with"
            " no space around them."
        )
    return str(name)
