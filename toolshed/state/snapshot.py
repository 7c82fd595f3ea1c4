"""A TrainState as plain data: nested dicts of numpy arrays and scalars, with a schema.

    {"schema": "toolshed.train_state/1",
     "step": 300,
     "root_rng": {"key_impl": "threefry2x32", "key_data": uint32[2]},
     "params": {"mlp/Affine_0/Linear.weights": float32[64,32], …},
     "frozen": {…}, "model_state": {…}, "opt_state": {…}, "loss_fn_state": {…}, "metrics": {…},
     "optimizer": "scale_by_adam(b1=0.9, …) → scale_by_learning_rate(…)"}

A snapshot holds values, never code: loading one needs a state to load into, which gives structure,
skeleton and optimiser. ``frozen`` are the arrays in the skeleton: frozen parameters and constants.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed import paths
from toolshed.errors import OptimizerWarning, SnapshotError, StateError
from toolshed.keys import is_key
from toolshed.state.optimizer import describe_optimizer

if TYPE_CHECKING:
    from toolshed.state.train_state import TrainState

SCHEMA = "toolshed.train_state/1"
_SECTIONS = {
    "params": "params",
    "frozen": "model_without_params",
    "model_state": "model_state",
    "opt_state": "opt_state",
    "loss_fn_state": "loss_fn_state",
    "metrics": "metrics",
}
_SHOWN = 8  # differing leaves that one message lists


def to_snapshot(state: TrainState) -> dict[str, Any]:
    """The state as plain data. Waits for the device and copies every array to the host."""
    snapshot: dict[str, Any] = {"schema": SCHEMA, "step": int(state.step), "root_rng": _save(state.root_rng)}
    for section, field in _SECTIONS.items():
        snapshot[section] = {path: _save(leaf) for path, leaf in _arrays(getattr(state, field))}
    snapshot["optimizer"] = describe_optimizer(state.optimizer_def)
    return snapshot


def from_snapshot(snapshot: Mapping[str, Any], like: TrainState) -> TrainState:
    """The state that a snapshot was made of, placed on the devices of ``like``.

    Raises:
      SnapshotError: the schema is unknown, a section is missing, or a leaf differs in path, shape or
        dtype; each differing leaf is named.
    """
    _check_schema(snapshot)
    differences = [line for section in _SECTIONS for line in _compare(section, snapshot, like)]
    saved_with, now = _word(snapshot["optimizer"]), describe_optimizer(like.optimizer_def)
    if differences:
        more = len(differences) - _SHOWN
        shown = "\n  ".join(differences[:_SHOWN] + ([f"and {more} more"] if more > 0 else []))
        raise SnapshotError(
            f"The snapshot of step {snapshot['step']} does not fit this state:\n  {shown}\n"
            f"It was saved with the optimizer {saved_with}; this state has {now}."
            " Build `like` with the model and the optimizer that the snapshot was made with."
        )
    if saved_with != now:
        warnings.warn(
            f"The snapshot was saved with the optimizer {saved_with}; training goes on with {now}.",
            OptimizerWarning,
            stacklevel=3,
        )
    fields = {
        field: _restore(snapshot[section], getattr(like, field)) for section, field in _SECTIONS.items()
    }
    step = jax.device_put(np.asarray(snapshot["step"], like.step.dtype), like.step.sharding)
    return like.replace(step=step, root_rng=_load(snapshot["root_rng"], like.root_rng), **fields)


def leaves(state: TrainState, is_leaf: Callable[[Any], bool] | None = None) -> Iterator[tuple[str, Any]]:
    """Every leaf of a state's saved fields by section and path: ``step``, ``root_rng``, ``params/…``.

    The sections are those of a snapshot. Nothing is copied, and no device is waited for.
    """
    yield "step", state.step
    yield "root_rng", state.root_rng
    for section, field in _SECTIONS.items():
        found = jax.tree_util.tree_flatten_with_path(getattr(state, field), is_leaf=is_leaf)[0]
        for keys, leaf in found:
            yield f"{section}/{paths.path_string(keys)}", leaf


def arrays(state: TrainState) -> dict[str, Any]:
    """The arrays among a state's `leaves`: what has to be saved to have the state again.

    Raises:
      StateError: two arrays have the same path, as in ``{"a/b": x, "a": {"b": y}}``.
    """
    found: dict[str, Any] = {}
    for path, leaf in leaves(state):
        if hasattr(leaf, "dtype"):
            if path in found:
                raise StateError(f"Two arrays have the path {path!r}, so one would be lost. Rename a key.")
            found[path] = leaf
    return found


def with_arrays(state: TrainState, values: Mapping[str, Any]) -> TrainState:
    """The state with values for all its `arrays` in their places."""
    fields: dict[str, Any] = {"step": values["step"], "root_rng": values["root_rng"]}
    for section, field in _SECTIONS.items():
        found, treedef = jax.tree_util.tree_flatten_with_path(getattr(state, field))
        fields[field] = treedef.unflatten(
            values[f"{section}/{paths.path_string(keys)}"] if hasattr(leaf, "dtype") else leaf
            for keys, leaf in found
        )
    return state.replace(**fields)


def _arrays(tree: Any) -> Iterator[tuple[str, jax.Array]]:
    """The arrays of a tree by path; the named arrays opened, Python scalars (configuration) left out."""
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if hasattr(leaf, "dtype"):
            yield paths.path_string(keys), leaf


def _save(leaf: Any) -> Any:
    if is_key(leaf):
        impl = str(jax.random.key_impl(leaf))
        return {"key_impl": impl, "key_data": np.array(jax.random.key_data(leaf))}
    return np.array(leaf)  # a copy: the device may give the buffer to a later step


def _load(value: Any, like: Any) -> Any:
    if isinstance(value, Mapping):
        bits = jnp.array(value["key_data"])
        return jax.device_put(jax.random.wrap_key_data(bits, impl=_word(value["key_impl"])), like.sharding)
    value = np.array(value)  # a copy: on a CPU jax may go on using the memory that it is given
    if value.dtype.kind == "V":
        value = value.view(like.dtype)
    return jax.device_put(value, like.sharding) if isinstance(like, jax.Array) else value


def _word(value: Any) -> str:
    """Text, also as numpy's files give it back: an array of no axes."""
    return str(np.asarray(value))


def _restore(saved: Mapping[str, Any], like: Any) -> Any:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    return treedef.unflatten(
        _load(saved[paths.path_string(keys)], leaf) if hasattr(leaf, "dtype") else leaf
        for keys, leaf in leaves
    )


def _check_schema(snapshot: Mapping[str, Any]) -> None:
    if not isinstance(snapshot, Mapping) or "schema" not in snapshot:
        raise SnapshotError(
            f"Expected a snapshot, a dict with a 'schema'; got {type(snapshot).__name__}"
            f"{' without one' if isinstance(snapshot, Mapping) else ''}."
        )
    schema = _word(snapshot["schema"])
    if schema != SCHEMA:
        raise SnapshotError(
            f"Unknown snapshot schema {schema!r}; this version of toolshed reads {SCHEMA!r}."
            " A newer toolshed may have written it: update, or save it again from there."
        )
    absent = [name for name in ("step", "root_rng", "optimizer", *_SECTIONS) if name not in snapshot]
    if absent:
        raise SnapshotError(f"The snapshot lacks {', '.join(map(repr, absent))}: it is not whole.")


def _kind(value: Any) -> str:
    """What a leaf is, on either side, so that two of a kind have the same word."""
    if isinstance(value, Mapping):
        return f"key<{_word(value['key_impl'])}>[{','.join(map(str, np.shape(value['key_data'])[:-1]))}]"
    if is_key(value):
        return f"key<{jax.random.key_impl(value)}>[{','.join(map(str, value.shape))}]"
    return paths.describe(value)


def _is_void_of(saved: Any, expected: Any) -> bool:
    """True for bytes of the right size and shape: numpy's files forget the name of a bfloat16."""
    dtype = getattr(saved, "dtype", None)
    if dtype is None or dtype.kind != "V" or is_key(expected) or expected.dtype.kind != "V":
        return False
    return dtype.itemsize == expected.dtype.itemsize and saved.shape == expected.shape


def _compare(section: str, snapshot: Mapping[str, Any], like: TrainState) -> Iterator[str]:
    saved = snapshot[section]
    expected = dict(_arrays(getattr(like, _SECTIONS[section])))
    for path in [*expected, *(path for path in saved if path not in expected)]:
        there = _kind(saved[path]) if path in saved else "absent"
        here = _kind(expected[path]) if path in expected else "absent"
        if there != here and not (
            path in saved and path in expected and _is_void_of(saved[path], expected[path])
        ):
            yield f"{section}/{path}: saved {there}, expected {here}"
