"""The state of a foreign loader as data that JSON can hold, and back."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from toolshed.errors import DataError


def to_plain(value: Any) -> Any:
    """A state of dicts, lists, tuples, numbers, strings, bytes, numpy arrays and PyTorch tensors as JSON's.

    Raises:
      DataError: it holds something else.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, Mapping):
        return {"dict": [[to_plain(key), to_plain(part)] for key, part in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__ if type(value) is tuple else "list": [to_plain(part) for part in value]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if type(value).__module__ == "torch":
        return {"tensor": to_plain(value.detach().cpu().numpy())}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return {"array": [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]}
    raise DataError(
        f"The loader's state holds a {type(value).__name__}, which cannot be saved as plain data."
    )


def from_plain(plain: Any) -> Any:
    """What `to_plain` was given."""
    if not isinstance(plain, Mapping):
        return plain
    ((kind, content),) = plain.items()
    if kind == "dict":
        return {from_plain(key): from_plain(part) for key, part in content}
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "array":
        dtype, shape, data = content
        return np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape).copy()
    if kind == "tensor":
        return sys.modules["torch"].from_numpy(from_plain(content))  # whoever has the loader has it loaded
    parts = [from_plain(part) for part in content]
    return tuple(parts) if kind == "tuple" else parts
