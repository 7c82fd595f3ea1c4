"""What a saved state is made of: one `Leaf` for each array, with its type, its place and its SHA-256.

It is a file of its own, ``structure.json``, beside the manifest, which holds its SHA-256: a list of
checkpoints is then read without it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from toolshed.errors import CheckpointDamagedError, CheckpointError
from toolshed.keys import is_key

MAX_BYTES = 256_000_000  # of the file

_NAMES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_MORE_NAMES = (
    "bfloat16", "int2", "uint2", "int4", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
    "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in _NAMES} | {
    name: np.dtype(getattr(ml_dtypes, name)) for name in _MORE_NAMES if hasattr(ml_dtypes, name)
}
"""The types of numbers that can be saved, by name."""

_HEX = set("0123456789abcdef")


class Kind(NamedTuple):
    """What two leaves must have in common for one to take the other's place.

    Attributes:
      dtype: its name; ``key<threefry2x32>`` for random keys.
      shape: sizes of the axes; for keys, of the array of keys.
    """

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Leaf(NamedTuple):
    """One saved array.

    Attributes:
      path: section and path in the state: ``params/mlp/Affine_0/Linear.weights``.
      kind: its dtype and shape.
      nbytes: bytes of its values.
      sha256: of its values in C order, little-endian; for keys, of their bits.
      sharding: how it lay on the devices, in words.
      array: the name of the stored array that holds it.
      offset: where in that array it begins, in bytes; None if it has the array for itself.
    """

    path: str
    kind: Kind
    nbytes: int
    sha256: str
    sharding: str
    array: str
    offset: int | None


def kind_of(leaf: Any) -> Kind:
    """The kind of an array or of random keys."""
    shape = tuple(int(size) for size in leaf.shape)
    if is_key(leaf):
        return Kind(f"key<{jax.random.key_impl(leaf)}>", shape)
    return Kind(np.dtype(leaf.dtype).name, shape)


def is_key_kind(kind: Kind) -> bool:
    """True for the kind of random keys."""
    return kind.dtype.startswith("key<")


def describe_sharding(sharding: Any) -> str:
    """How an array lies on its devices, in words: ``data=8: ('data',)``; None is the host."""
    if sharding is None:
        return "host"
    if isinstance(sharding, jax.sharding.NamedSharding):
        axes = ",".join(f"{name}={size}" for name, size in sharding.mesh.shape.items())
        return f"{axes}: {tuple(sharding.spec)}"
    return f"{len(sharding.device_set)} device" + "s" * (len(sharding.device_set) != 1)


def to_json(leaves: Iterable[Leaf]) -> bytes:
    """The structure as the content of its file."""
    rows = [
        {
            "path": leaf.path,
            "dtype": leaf.kind.dtype,
            "shape": leaf.kind.shape,
            "bytes": leaf.nbytes,
            "sha256": leaf.sha256,
            "sharding": leaf.sharding,
            "array": leaf.array,
            "offset": leaf.offset,
        }
        for leaf in leaves
    ]
    return json.dumps({"leaves": rows}, indent=0).encode()


def read(path: Path) -> tuple[Leaf, ...]:
    """The structure in a file. Nothing in it is believed: each entry is checked, and none allocates.

    Raises:
      CheckpointDamagedError: it is no structure.
    """
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointDamagedError(f"{path.name} is larger than {MAX_BYTES:,} bytes")
    try:
        rows = json.loads(path.read_bytes())["leaves"]
        leaves = tuple(_leaf(row) for row in rows)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, CheckpointError) as error:
        raise CheckpointDamagedError(f"{path.name} does not say which arrays there are: {error}") from None
    if len({leaf.path for leaf in leaves}) != len(leaves):
        raise CheckpointDamagedError(f"{path.name} names an array twice")
    return leaves


def _leaf(row: Any) -> Leaf:
    shape = tuple(_whole(size) for size in row["shape"])
    leaf = Leaf(
        path=_text(row["path"], 10_000),
        kind=Kind(_text(row["dtype"], 100), shape),
        nbytes=_whole(row["bytes"]),
        sha256=_text(row["sha256"], 64),
        sharding=_text(row["sharding"], 1_000),
        array=_text(row["array"], 20),
        offset=None if row["offset"] is None else _whole(row["offset"]),
    )
    if len(leaf.sha256) != 64 or not set(leaf.sha256) <= _HEX:
        raise ValueError(f"{leaf.path!r} has no SHA-256")
    if not (leaf.array.isascii() and leaf.array.isalnum()):
        raise ValueError(f"{leaf.path!r} is stored as {leaf.array!r}")
    dtype = DTYPES.get(leaf.kind.dtype)
    if dtype is None and not is_key_kind(leaf.kind):
        raise ValueError(f"{leaf.path!r} is of the unknown type {leaf.kind.dtype!r}")
    if dtype is not None and leaf.nbytes != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{leaf.path!r} is {leaf.kind} in {leaf.nbytes} bytes")
    return leaf


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError(f"{str(value)[:40]!r} is no size")
    return value


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"{str(value)[:40]!r} is no text of at most {longest} characters")
    value.encode()  # a lone surrogate is refused
    return value
