"""Arrays on disk. The only module that knows orbax, which is loaded when the first array is written or read.

orbax is given a flat dict of numpy arrays under names of our own, and a directory in which nobody else
writes; it is asked for nothing but to write them and to read them. So none of its own ideas of steps,
casts, names or commits is relied on, and what comes back is checked leaf by leaf against its SHA-256.

Arrays smaller than 64 KiB are packed into one, since orbax takes about a millisecond for each.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import logging
import math
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.checkpoints.structure import DTYPES, Kind, Leaf, describe_sharding, is_key_kind, kind_of
from toolshed.errors import CheckpointDamagedError, CheckpointError
from toolshed.keys import is_key

PACK_BELOW = 1 << 16
"""Arrays of fewer bytes are packed into one."""

_ITEM = "arrays"
_PACKED = "packed"
# What orbax stores as it is; other types are stored as their bytes.
_NATIVE = {"bool", "bfloat16", "complex64", "complex128"} | {
    f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)
}
_Result = TypeVar("_Result")


# --- off the device ---------------------------------------------------------------------------------


def check_saveable(leaves: Mapping[str, Any]) -> None:
    """Whether all arrays of a state can be saved.

    Raises:
      CheckpointError: one is no array of numbers, or is spread over several processes.
    """
    for path, leaf in leaves.items():
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise CheckpointError(
                f"{path} is spread over several processes; a repository saves what one process holds."
            )
        if isinstance(leaf, jax.Array) and leaf.is_deleted():
            raise CheckpointError(f"{path} is gone: the state was given to a step that donates.")
        if not is_key(leaf) and kind_of(leaf).dtype not in DTYPES:
            raise CheckpointError(f"{path} is {kind_of(leaf)}; only arrays of numbers can be saved.")


def copy(leaves: Mapping[str, Any], buffers: dict[str, np.ndarray]) -> dict[str, Any]:
    """Copies that no later step can change or take the memory of.

    What is in the host's memory is copied there, which waits for it to be computed; what is on devices is
    copied on them, which waits for nothing, or to the host where they are full. What a step never gives
    away, the skeleton's arrays, is not copied.

    Args:
      leaves: arrays and keys by path.
      buffers: memory of the host from the time before, used again where it fits: memory that is touched
        for the first time is several times slower. It is left with this time's.
    """
    copied, moving, kept = dict(leaves), {}, {}
    for path, leaf in leaves.items():
        if not isinstance(leaf, jax.Array):
            copied[path] = np.array(leaf)
        elif path.startswith("frozen/"):
            continue
        elif is_key(leaf) or not on_host(leaf):
            moving[path] = leaf
        else:
            values = np.asarray(leaf)
            buffer = buffers.get(path)
            if buffer is None or (buffer.shape, buffer.dtype) != (values.shape, values.dtype):
                buffer = np.empty(values.shape, values.dtype)
            np.copyto(buffer, values)
            copied[path] = kept[path] = buffer
    buffers.clear()
    buffers.update(kept)
    if has_room(moving.values()):
        shardings = [leaf.sharding for leaf in moving.values()]
        copies = jax.device_put(list(moving.values()), shardings, may_alias=False)
        return copied | dict(zip(moving, copies, strict=True))
    return copied | {path: jnp.copy(leaf) if is_key(leaf) else to_host(leaf) for path, leaf in moving.items()}


def on_host(leaf: Any) -> bool:
    """True if numpy can look at an array's memory where it is."""
    devices = leaf.sharding.device_set
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def has_room(leaves: Iterable[Any]) -> bool:
    """Whether each device can hold its part of these arrays a second time, as far as devices tell."""
    needed: dict[Any, int] = {}
    for leaf in leaves:
        share = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for device in leaf.sharding.device_set:
            needed[device] = needed.get(device, 0) + share
    for device, size in needed.items():
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)
        if free < 1.5 * size:
            return False
    return True


def to_host(leaf: Any) -> np.ndarray:
    """A leaf's values in C order and little-endian, of keys their bits. Waits for the device."""
    return _in_order(np.asarray(_readable(leaf)))


def _in_order(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(values.shape)


def _readable(leaf: Any) -> Any:
    """What numpy can read: of keys the bits, of arrays another object with the same memory.

    jax keeps the copy on the host that it makes for numpy for as long as it keeps the array.
    """
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if not isinstance(leaf, jax.Array):
        return leaf
    shards = [shard.data for shard in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)


def hash_of(values: np.ndarray) -> str:
    """The SHA-256 of an array's bytes."""
    return hashlib.sha256(_bytes_of(values).data).hexdigest()


def _bytes_of(values: np.ndarray) -> np.ndarray:
    """uint8[nbytes], sharing memory."""
    return values.reshape(-1).view(np.uint8)


# --- writing ----------------------------------------------------------------------------------------


def write(folder: Path, leaves: Mapping[str, Any], shardings: Mapping[str, Any]) -> tuple[Leaf, ...]:
    """Writes arrays into a directory that does not exist yet. Waits for the device and the disk.

    To be called where no event loop runs, in a thread of its own.

    Args:
      folder: where to.
      leaves: arrays and keys by path, as `copy` gives them.
      shardings: how they lay on the devices, by path.

    Returns:
      What was written, and where each array is.
    """
    found, stored, packed, offset = [], {}, [], 0
    readable = {path: _readable(leaf) for path, leaf in leaves.items()}
    for leaf in readable.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()  # all at once, before the first is waited for
    for path, leaf in leaves.items():
        kind = kind_of(leaf)
        values = _in_order(np.asarray(readable.pop(path)))
        is_small = values.nbytes < PACK_BELOW
        name = _PACKED if is_small else f"{len(stored):05d}"
        place = offset if is_small else None
        lay = describe_sharding(shardings.get(path))
        found.append(Leaf(path, kind, values.nbytes, hash_of(values), lay, name, place))
        if is_small:
            packed.append(_bytes_of(values))
            offset += values.nbytes
        else:
            stored[name] = values if kind.dtype in _NATIVE else _bytes_of(values)
    stored[_PACKED] = np.concatenate([*packed, np.zeros(1, np.uint8)])  # orbax takes no empty array
    _write(folder, stored)
    return tuple(found)


def _write(folder: Path, stored: dict[str, np.ndarray]) -> None:
    orbax = _orbax()
    context = orbax.Context()
    context.array.saving.use_zarr3 = True
    context.array.saving.use_compression = False  # three times as fast, and weights hardly get smaller
    context.memory.deepcopy_host_arrays = False
    with _quiet(), context:
        orbax.save_checkpointables(str(folder), {_ITEM: stored})
    # It says nothing but where on this machine it was written, which is nobody else's business.
    (folder / "commit_success.txt").unlink(missing_ok=True)


# --- reading ----------------------------------------------------------------------------------------


def read(folder: Path, leaves: Sequence[Leaf], wanted: Iterable[Leaf], largest: int) -> dict[str, np.ndarray]:
    """Reads arrays that `write` wrote; keys come as their bytes.

    Memory is taken only after the stored arrays were seen to be of the sizes that the leaves say, which
    together are no more than ``largest``.

    Args:
      folder: where they are.
      leaves: all that were written there.
      wanted: those of them to read.
      largest: how many bytes the directory's files have. Nothing is compressed, so there is no more.

    Raises:
      CheckpointDamagedError: an array is missing, of another type, or not as it was written.
    """
    if sum(leaf.nbytes for leaf in leaves) > largest:
        raise CheckpointDamagedError("its arrays are said to be larger than its files")
    packed = 1 + sum(leaf.nbytes for leaf in leaves if leaf.offset is not None)
    wanted = tuple(wanted)
    if not wanted:
        return {}
    stored = apart(lambda: _read(folder, _expected(wanted, packed)))
    return {leaf.path: _unpack(leaf, stored[leaf.array]) for leaf in wanted}


def _expected(leaves: Iterable[Leaf], packed: int) -> dict[str, Kind]:
    """The stored arrays that hold these leaves, by name."""
    expected: dict[str, Kind] = {}
    for leaf in leaves:
        in_pack = leaf.array == _PACKED
        if in_pack != (leaf.offset is not None) or (leaf.offset or 0) + leaf.nbytes > max(
            packed, leaf.nbytes
        ):
            raise CheckpointDamagedError(f"the place of {leaf.path} makes no sense")
        if leaf.array in expected and not in_pack:
            raise CheckpointDamagedError(f"{leaf.path} is stored where another array is")
        as_it_is = leaf.kind if leaf.kind.dtype in _NATIVE else Kind("uint8", (leaf.nbytes,))
        expected[leaf.array] = Kind("uint8", (packed,)) if in_pack else as_it_is
    return expected


def _read(folder: Path, expected: Mapping[str, Kind]) -> dict[str, np.ndarray]:
    orbax = _orbax()
    context = orbax.Context()
    context.pytree.loading.partial_load = True
    try:
        with _quiet(), context:
            there = orbax.checkpointables_metadata(str(folder)).metadata[_ITEM]
            for name, kind in expected.items():
                _check_stored(name, there, kind)
            like = {
                name: np.broadcast_to(np.zeros((), DTYPES[kind.dtype]), kind.shape)
                for name, kind in expected.items()
            }
            return orbax.load_checkpointables(str(folder), {_ITEM: like})[_ITEM]
    except CheckpointError:
        raise
    except Exception as error:
        first: BaseException = error
        while first.__cause__ or first.__context__:
            first = first.__cause__ or first.__context__ or first
        line = next(iter(str(first).splitlines()), "")[:200]
        raise CheckpointDamagedError(f"its arrays cannot be read: {type(first).__name__}: {line}") from error


def _check_stored(name: str, there: Mapping[str, Any], kind: Kind) -> None:
    """Whether a stored array is what it should be, and lies in pieces no larger than itself."""
    if name not in there:
        raise CheckpointDamagedError(f"the stored array {name} is missing")
    found = Kind(np.dtype(there[name].dtype).name, tuple(there[name].shape))
    if found != kind:
        raise CheckpointDamagedError(f"the stored array {name} is {found}; expected {kind}")
    pieces = there[name].storage_metadata.chunk_shape
    if any(piece > max(1, size) for piece, size in zip(pieces, kind.shape, strict=True)):
        raise CheckpointDamagedError(f"the stored array {name} is {kind}, in pieces of {list(pieces)}")


def _unpack(leaf: Leaf, stored: np.ndarray) -> np.ndarray:
    """A leaf's values out of the array that holds them, checked."""
    values = _bytes_of(stored)
    if leaf.offset is not None:
        values = values[leaf.offset : leaf.offset + leaf.nbytes].copy()
    if values.nbytes != leaf.nbytes or hash_of(values) != leaf.sha256:
        raise CheckpointDamagedError(f"the values of {leaf.path} are not those that were saved")
    if is_key_kind(leaf.kind):
        return values
    return values.view(DTYPES[leaf.kind.dtype]).reshape(leaf.kind.shape)


# --- orbax ------------------------------------------------------------------------------------------


def _orbax() -> Any:
    from orbax.checkpoint import v1  # slow to import

    return v1


def apart(function: Callable[[], _Result]) -> _Result:
    """Runs a function in a thread of its own: orbax wants no event loop around it, and a kernel has one."""
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="toolshed-arrays")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class _OrbaxErrors(logging.Filter):
    """Keeps from the log what orbax raises, too: a page of traceback for each of its threads and tasks."""

    def filter(self, record: logging.LogRecord) -> bool:
        files = [record.pathname]
        if record.exc_info:
            files += [frame.filename for frame in traceback.extract_tb(record.exc_info[2])]
        return not any("orbax" in file for file in files)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    errors = _OrbaxErrors()
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]  # orbax has made them by now
    for logger in loggers:
        logger.addFilter(errors)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(errors)
