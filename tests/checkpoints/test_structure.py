from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.checkpoints import structure
from toolshed.checkpoints.structure import Kind, Leaf
from toolshed.errors import CheckpointDamagedError

ROW: dict[str, Any] = {
    "path": "params/w",
    "dtype": "float32",
    "shape": [2, 3],
    "bytes": 24,
    "sha256": "ab" * 32,
    "sharding": "1 device",
    "array": "00000",
    "offset": None,
}


def read(tmp_path: Path, content: Any) -> tuple[Leaf, ...]:
    path = tmp_path / "structure.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return structure.read(path)


def test_what_is_written_is_read(tmp_path):
    leaves = (
        Leaf("params/w", Kind("float32", (2, 3)), 24, "ab" * 32, "1 device", "00000", None),
        Leaf("frozen/größe", Kind("uint4", (3,)), 3, "01" * 32, "host", "packed", 0),
        Leaf("root_rng", Kind("key<threefry2x32>", ()), 8, "02" * 32, "1 device", "packed", 3),
        Leaf("empty", Kind("bfloat16", (0, 7)), 0, "03" * 32, "1 device", "packed", 11),
    )
    assert read(tmp_path, structure.to_json(leaves)) == leaves
    assert read(tmp_path, structure.to_json(())) == ()


def test_a_kind_in_words():
    assert str(structure.kind_of(jnp.zeros((2, 3), jnp.bfloat16))) == "bfloat16[2,3]"
    assert str(structure.kind_of(np.zeros((), ">f4"))) == "float32[]"
    assert str(structure.kind_of(jax.random.split(jax.random.key(0), 3))) == "key<threefry2x32>[3]"
    assert str(structure.kind_of(jax.random.key(0, impl="rbg"))) == "key<rbg>[]"
    assert structure.kind_of(jax.random.PRNGKey(0)) == Kind("uint32", (2,))


def test_shardings_in_words():
    assert structure.describe_sharding(None) == "host"
    assert structure.describe_sharding(jnp.ones(2).sharding) == "1 device"
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    assert structure.describe_sharding(sharding) == "data=1: ('data',)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [-1, 3]}, "'-1' is no size"),
        ({"shape": [2.0]}, "'2.0' is no size"),
        ({"shape": [True]}, "'True' is no size"),
        ({"shape": [2**70]}, "is no size"),
        ({"shape": [10**13], "bytes": 24}, "'params/w' is float32[10000000000000] in 24 bytes"),
        ({"bytes": 25}, "'params/w' is float32[2,3] in 25 bytes"),
        ({"bytes": "24"}, "'24' is no size"),
        ({"dtype": "object"}, "'params/w' is of the unknown type 'object'"),
        ({"dtype": "O"}, "'params/w' is of the unknown type 'O'"),
        ({"dtype": "i4,f8"}, "unknown type"),
        ({"dtype": None}, "is no text"),
        ({"sha256": "AB" * 32}, "'params/w' has no SHA-256"),
        ({"sha256": "ab"}, "'params/w' has no SHA-256"),
        ({"array": "../../evil"}, "'params/w' is stored as '../../evil'"),
        ({"array": ""}, "'params/w' is stored as ''"),
        ({"array": "x" * 21}, "is no text of at most 20 characters"),
        ({"path": "x" * 10_001}, "is no text of at most 10000 characters"),
        ({"path": "\ud800"}, "surrogates not allowed"),
        ({"offset": -1}, "'-1' is no size"),
        ({"shape": None}, "not iterable"),
    ],
)
def test_a_leaf_that_makes_no_sense_is_told(tmp_path, change, message):
    assert len(read(tmp_path, {"leaves": [ROW]})) == 1
    pattern = f"structure.json does not say which arrays there are: .*{re.escape(message)}"
    with pytest.raises(CheckpointDamagedError, match=pattern):
        read(tmp_path, {"leaves": [ROW | change]})


@pytest.mark.parametrize("name", sorted(ROW))
def test_a_leaf_without_one_of_its_entries_is_told(tmp_path, name):
    with pytest.raises(CheckpointDamagedError, match=f"does not say which arrays there are: '{name}'"):
        read(tmp_path, {"leaves": [{key: value for key, value in ROW.items() if key != name}]})


def test_two_leaves_of_one_path_are_told(tmp_path):
    with pytest.raises(CheckpointDamagedError, match="names an array twice"):
        read(tmp_path, {"leaves": [ROW, ROW]})


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"5", b"{}", b'{"leaves": 5}', b"[" * 100_000])
def test_what_is_no_structure_is_told(tmp_path, content):
    with pytest.raises(CheckpointDamagedError, match="does not say which arrays there are"):
        read(tmp_path, content)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "structure.json"
    with path.open("wb") as file:
        file.truncate(10**12)  # takes no room on the disk
    with pytest.raises(CheckpointDamagedError, match="larger than 256,000,000 bytes"):
        structure.read(path)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
)


@given(name=st.sampled_from(sorted(ROW)), value=VALUES | st.lists(VALUES, max_size=3))
@settings(deadline=None, max_examples=150)
def test_whatever_stands_in_a_leaf_it_is_a_leaf_or_told(tmp_path_factory, name, value):
    try:
        (leaf,) = read(tmp_path_factory.getbasetemp(), {"leaves": [ROW | {name: value}]})
    except CheckpointDamagedError:
        return
    assert leaf.nbytes == np.prod(leaf.kind.shape) * 4
