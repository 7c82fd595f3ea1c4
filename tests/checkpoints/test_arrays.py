from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolshed.checkpoints import arrays
from toolshed.checkpoints.structure import DTYPES, Kind, Leaf
from toolshed.errors import CheckpointDamagedError, CheckpointError

# The bits that a value of these types, which are smaller than a byte, can have.
NARROW = {"bool": 1, "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4, "float6_e2m3fn": 6}
NARROW |= {"float6_e3m2fn": 6}
LARGEST = 10**9


def there_and_back(folder: Path, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The leaves written and read."""
    written = arrays.write(folder / "arrays", leaves, {})
    return arrays.read(folder / "arrays", written, written, LARGEST)


def any_bits(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values of a type with all bits that it can have: all NaNs, both zeros, subnormals."""
    dtype = DTYPES[name]
    count = int(np.prod(shape)) * dtype.itemsize
    raw = np.random.default_rng(seed).integers(0, 2 ** NARROW.get(name, 8), count, dtype=np.uint8)
    return raw.view(dtype).reshape(shape)


def test_arrays_of_every_type_and_size_come_back_bit_for_bit(tmp_path):
    shapes = [(), (3,), (2, 0, 5), (1, 70_001)]  # packed, packed, without any values, stored by itself
    leaves = {f"{name}{shape}": any_bits(name, shape) for name in DTYPES for shape in shapes}
    found = there_and_back(tmp_path, leaves)
    assert found.keys() == leaves.keys()
    for path, leaf in leaves.items():
        assert (found[path].shape, found[path].dtype) == (leaf.shape, leaf.dtype), path
        assert found[path].tobytes() == leaf.tobytes(), path


@st.composite
def some_arrays(draw: st.DrawFn) -> np.ndarray:
    name = draw(st.sampled_from(sorted(set(DTYPES) - {"bool"} - set(NARROW))))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    count = int(np.prod(shape)) * DTYPES[name].itemsize
    return np.frombuffer(draw(st.binary(min_size=count, max_size=count)), DTYPES[name]).reshape(shape)


@given(st.lists(some_arrays(), max_size=5))
@settings(deadline=None, max_examples=15)
def test_any_bits_come_back(tmp_path_factory, values):
    leaves = {str(i): value for i, value in enumerate(values)}
    found = there_and_back(tmp_path_factory.mktemp("any"), leaves)
    assert [value.tobytes() for value in found.values()] == [value.tobytes() for value in values]


def test_memory_in_another_order_is_written_in_ours(tmp_path):
    values = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    leaves = {"c": values, "fortran": np.asfortranarray(values), "slice": values[::2, ::2]}
    leaves |= {"big-endian": values.astype(">f4"), "small": np.arange(3, dtype=">i8")}
    found = there_and_back(tmp_path, leaves)
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(found[path], leaf)
        assert found[path].dtype.isnative


def test_keys_come_as_their_bits(tmp_path):
    keys = {
        "one": jax.random.key(3),
        "many": jax.random.split(jax.random.key(3), (2, 2)),
        "none": jax.random.split(jax.random.key(3), 0),
        "rbg": jax.random.key(5, impl="rbg"),
        "large": jax.random.split(jax.random.key(3), 9_000),
    }
    written = arrays.write(tmp_path / "arrays", keys, {})
    assert str(written[1].kind) == "key<threefry2x32>[2,2]"
    found = arrays.read(tmp_path / "arrays", written, written, LARGEST)
    for path, key in keys.items():
        assert found[path].tobytes() == np.asarray(jax.random.key_data(key)).tobytes()


def test_names_that_would_collide_for_orbax_do_not(tmp_path):
    big = np.zeros(20_000, np.float32)
    leaves = {
        "a.b": big + 1,
        "a/b": big + 2,
        "a": big + 3,
        "a/b/c/0": big + 4,
        "../../evil": big + 5,
        "\0": big,
    }
    found = there_and_back(tmp_path, leaves)
    assert {path: value[0] for path, value in found.items()} == {path: x[0] for path, x in leaves.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arrays"]


def test_small_arrays_are_stored_in_one(tmp_path):
    leaves = {str(i): np.full((i,), i, np.int32) for i in range(200)}
    leaves |= {
        "edge": np.zeros(arrays.PACK_BELOW, np.uint8),
        "under": np.zeros(arrays.PACK_BELOW - 1, np.uint8),
    }
    written = arrays.write(tmp_path / "arrays", leaves, {})
    alone = [leaf.path for leaf in written if leaf.offset is None]
    assert alone == ["edge"]
    tree = json.loads((tmp_path / "arrays" / "arrays" / "_METADATA").read_bytes())["tree_metadata"]
    assert len(tree) == 2


def test_nothing_is_read_where_nothing_is_wanted(tmp_path):
    assert there_and_back(tmp_path, {}) == {}


def test_a_few_are_read_without_the_rest(tmp_path):
    leaves = {str(i): np.full(20_000, i, np.float32) for i in range(3)}
    written = arrays.write(tmp_path / "arrays", leaves, {})
    found = arrays.read(tmp_path / "arrays", written, written[1:2], LARGEST)
    assert list(found) == ["1"]
    np.testing.assert_array_equal(found["1"], leaves["1"])


# --- copies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_host", [True, False])
def test_a_copy_outlives_the_donation_of_its_original(monkeypatch, on_host):
    monkeypatch.setattr(arrays, "on_host", lambda leaf: on_host)  # False: as arrays on a GPU are copied
    donate = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    buffers: dict[str, np.ndarray] = {}
    for size in (3, 1_000_000):
        for n in range(4):
            original = jnp.arange(float(size)) + n
            where = original.unsafe_buffer_pointer()
            copied = arrays.copy({"params/x": original}, buffers)["params/x"]
            assert isinstance(copied, np.ndarray) == on_host
            after = donate(original)
            assert original.is_deleted()
            assert after.unsafe_buffer_pointer() == where  # its memory was really given away
            np.testing.assert_array_equal(copied, np.arange(float(size)) + n)
            assert float(after[0]) == -1


def test_memory_for_copies_is_used_again_where_it_fits():
    buffers: dict[str, np.ndarray] = {}
    first = arrays.copy({"params/x": jnp.zeros(3), "params/y": jnp.zeros(3)}, buffers)
    again = arrays.copy({"params/x": jnp.ones(3), "params/z": jnp.zeros(3)}, buffers)
    assert again["params/x"] is first["params/x"]
    np.testing.assert_array_equal(again["params/x"], [1, 1, 1])
    assert set(buffers) == {"params/x", "params/z"}
    for other in (jnp.zeros(4), jnp.zeros(3, jnp.int32)):
        changed = arrays.copy({"params/x": other}, buffers)["params/x"]
        assert changed is not first["params/x"]
        np.testing.assert_array_equal(changed, other)


def test_what_no_step_gives_away_is_not_copied_and_numpy_s_memory_is():
    frozen, host = jnp.ones(3), np.ones(3)
    copied = arrays.copy({"frozen/x": frozen, "frozen/y": host}, {})
    assert copied["frozen/x"] is frozen
    host[:] = 7
    np.testing.assert_array_equal(copied["frozen/y"], [1, 1, 1])


def test_where_devices_are_full_the_copy_is_on_the_host(monkeypatch):
    monkeypatch.setattr(arrays, "on_host", lambda leaf: False)
    monkeypatch.setattr(arrays, "has_room", lambda leaves: False)
    original, key = jnp.arange(300_000.0), jax.random.key(3)
    copied = arrays.copy({"params/x": original, "root_rng": key}, {})
    assert isinstance(copied["params/x"], np.ndarray)
    assert jnp.issubdtype(copied["root_rng"].dtype, jax.dtypes.prng_key)
    jax.jit(lambda x: x * 0, donate_argnums=0)(original)
    np.testing.assert_array_equal(copied["params/x"], np.arange(300_000.0))


def test_what_lies_on_several_devices_or_on_others_is_not_on_the_host():
    assert arrays.on_host(jnp.ones(3))

    class Elsewhere:
        def __init__(self, *platforms: str):
            self.sharding, self.platform = self, platforms[0]
            self.device_set = [self] * len(platforms)

    assert not arrays.on_host(Elsewhere("cpu", "cpu"))
    assert not arrays.on_host(Elsewhere("gpu"))
    assert arrays.on_host(Elsewhere("cpu"))


def test_room_is_what_devices_tell(monkeypatch):
    leaf = jnp.zeros(1000, jnp.float32)
    assert arrays.has_room([leaf])  # a CPU tells nothing

    class Told:
        def __init__(self, free: int):
            self.free = free

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 10_000, "bytes_in_use": 10_000 - self.free}

    class Lying:
        shape, dtype = (1000,), np.dtype(np.float32)

        def __init__(self, *devices: Told):
            self.sharding = self
            self.device_set = set(devices)

        def shard_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
            return (shape[0] // len(self.device_set),)

    assert arrays.has_room([Lying(Told(6_000))])
    assert not arrays.has_room([Lying(Told(5_999))])
    assert arrays.has_room([Lying(Told(3_000), Told(3_000))])
    assert not arrays.has_room([Lying(Told(9_000), Told(2_999))])
    device = Told(9_000)
    assert not arrays.has_room([Lying(device), Lying(device)])


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (np.asarray(["word"]), "frozen/x is str128[1]; only arrays of numbers can be saved."),
        (np.asarray([object()]), "frozen/x is object[1]; only arrays of numbers"),
        (np.zeros(1, "M8[s]"), "frozen/x is datetime64[s][1]; only arrays of numbers"),
        (np.zeros(1, "i4,f8"), "only arrays of numbers"),
    ],
)
def test_what_is_no_array_of_numbers_is_told(leaf, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        arrays.check_saveable({"frozen/x": leaf})


def test_a_donated_array_is_told():
    leaf = jnp.ones(3)
    leaf.delete()
    with pytest.raises(CheckpointError, match="metrics/x is gone: the state was given to a step"):
        arrays.check_saveable({"metrics/x": leaf})


# --- what is not as it was written ------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, tuple[Leaf, ...]]:
    leaves = {"large": np.arange(20_000, dtype=np.float32), "small": np.arange(3, dtype=np.int32)}
    return tmp_path / "arrays", arrays.write(tmp_path / "arrays", leaves, {})


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        (0, {"sha256": "00" * 32}, "the values of large are not those that were saved"),
        (1, {"sha256": "00" * 32}, "the values of small are not those that were saved"),
        (1, {"offset": 4}, "the place of small makes no sense"),
        (1, {"offset": 2**40}, "the place of small makes no sense"),
        (1, {"offset": None}, "the place of small makes no sense"),
        (0, {"offset": 0}, "the place of large makes no sense"),
        (0, {"array": "00007"}, "the stored array 00007 is missing"),
        (0, {"kind": Kind("float32", (9,)), "nbytes": 36}, "00000 is float32[20000]; expected float32[9]"),
        (0, {"kind": Kind("int32", (20_000,))}, "00000 is float32[20000]; expected int32[20000]"),
        (0, {"kind": Kind("float32", (2, 10_000))}, "00000 is float32[20000]; expected float32[2,10000]"),
        (1, {"nbytes": 8, "kind": Kind("int32", (2,))}, "packed is uint8[13]; expected uint8[9]"),
        (0, {"nbytes": 2 * LARGEST}, "are said to be larger than its files"),
    ],
)
def test_a_structure_that_does_not_fit_the_arrays_is_told(written, which, change, message):
    folder, leaves = written
    assert set(arrays.read(folder, leaves, leaves, LARGEST)) == {"large", "small"}
    changed = [leaf._replace(**change) if i == which else leaf for i, leaf in enumerate(leaves)]
    with pytest.raises(CheckpointDamagedError, match=re.escape(message)):
        arrays.read(folder, changed, [changed[which]], LARGEST)


def test_two_leaves_in_one_array_are_told(written):
    folder, leaves = written
    twice = (leaves[0], leaves[0]._replace(path="other"))
    with pytest.raises(CheckpointDamagedError, match="other is stored where another array is"):
        arrays.read(folder, twice, twice, LARGEST)


def test_files_that_orbax_cannot_read_are_told_in_one_line_and_nothing_is_logged(written, caplog, capfd):
    folder, leaves = written
    for path in folder.rglob("manifest.ocdbt"):
        path.write_bytes(b"nonsense")
    with caplog.at_level(logging.DEBUG), pytest.raises(CheckpointDamagedError) as caught:
        arrays.read(folder, leaves, leaves, LARGEST)
    assert re.fullmatch(r"its arrays cannot be read: \w+: .{1,200}", str(caught.value))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr().err == ""


# --- threads ----------------------------------------------------------------------------------------


def test_what_runs_apart_returns_and_raises_as_if_it_were_here():
    assert arrays.apart(lambda: 5) == 5
    with pytest.raises(KeyError, match="mine"):
        arrays.apart(lambda: {}["mine"])


def test_reading_needs_no_quiet_event_loop(written):
    folder, leaves = written

    async def in_a_kernel() -> set[str]:
        return set(arrays.read(folder, leaves, leaves, LARGEST))

    with ThreadPoolExecutor(1) as pool:  # in this thread the browser's tests may have a loop
        assert pool.submit(lambda: asyncio.run(in_a_kernel())).result() == {"large", "small"}
