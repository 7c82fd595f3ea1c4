"""What a model is to toolshed: something that splits into a skeleton and flat dicts of arrays.

A model library (penzai today; Flax NNX or Equinox alike) is one object that can answer four
questions about a model. Everything above this layer works with the answers and never asks which
library a model came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jax.core import Tracer

from toolshed import paths
from toolshed.errors import ModelError


class Split(NamedTuple):
    """A model taken apart.

    Attributes:
      skeleton: the model with an empty slot in the place of each value in the two dicts. It is a
        tree of the library's own classes: it can be drawn, selected from and compared. Frozen
        parameters and constants stay in it.
      params: the trainable values by path, in the model's order.
      model_state: the values that the forward pass changes, by path.
    """

    skeleton: Any
    params: dict[str, jax.Array]
    model_state: dict[str, jax.Array]


class Bound(NamedTuple):
    """A model put together again.

    Attributes:
      model: the whole model, ready to be called.
      read_model_state: gives the model state as it is now, after calls that changed it.
    """

    model: Any
    read_model_state: Callable[[], dict[str, Any]]


@runtime_checkable
class ModelLibrary(Protocol):
    """One library of models. An adapter is one file that implements this."""

    name: str

    def recognises(self, tree: Any) -> bool:
        """True if ``tree`` is a model, or a skeleton, of this library."""
        ...

    def split(self, model: Any) -> Split:
        """Takes a model apart. The model that was passed in stays as it is.

        Raises:
          ModelError: labels clash, or a parameter holds something that is not an array.
        """
        ...

    def bind(
        self, skeleton: Any, params: Mapping[str, Any], model_state: Mapping[str, Any], *, frozen: bool
    ) -> Bound:
        """Fills the slots of a skeleton.

        Args:
          skeleton: as `split` made it.
          params: values by path.
          model_state: values by path.
          frozen: True inside a step, where parameters must not be assigned to; False for the model
            that a person gets, whose variables are mutable copies.
        """
        ...

    def parameter_order(self, skeleton: Any) -> list[str]:
        """The keys of the parameters in the order in which they stand in the model."""
        ...

    def evaluation_mode(self, skeleton: Any) -> Any:
        """The same model or skeleton without the randomness of training (dropout)."""
        ...


class Value(NamedTuple):
    """The arrays of one parameter and how they make up its value (a named array, say)."""

    arrays: dict[str, jax.Array]
    structure: Any
    description: str


def flatten_value(key: str, value: Any, *, where: str) -> Value:
    """The arrays inside one parameter's value: one under ``key``, several under ``key/…``.

    Raises:
      ModelError: the value holds no array, or something that is none.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(value)
    if not leaves:
        raise ModelError(f"Parameter {key!r} at {where} holds no array, but {type(value).__name__}.")
    arrays = {}
    for keys, leaf in leaves:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ModelError(
                f"Parameter {key!r} at {where} holds {paths.describe(leaf)}, expected an array."
                " Give it a jax.Array, or keep the value in an ordinary field of the layer."
            )
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted():
            raise ModelError(
                f"The array of parameter {key!r} at {where} has been deleted, most likely because it"
                " was donated to a compiled step. Build the model again, or bind it from a TrainState."
            )
        path = f"{key}/{paths.path_string(keys)}" if len(leaves) > 1 else key
        add_arrays(arrays, {path: leaf}, where)
    description = paths.describe(value) if len(leaves) == 1 else f"{len(leaves)} arrays"
    return Value(arrays, structure, description)


def add_arrays(values: dict[str, Any], arrays: Mapping[str, Any], place: str) -> None:
    """Puts the arrays of one parameter among those of the others.

    Raises:
      ModelError: a path is taken already.
    """
    taken = [path for path in arrays if path in values]
    if taken:
        raise ModelError(
            f"The value at {place} has an array whose path is {taken[0]!r}, which another parameter has"
            " already. Rename one of the two."
        )
    values.update(arrays)


def unflatten_value(key: str, structure: Any, values: Mapping[str, Any]) -> Any:
    """The inverse of `flatten_value`.

    Raises:
      ModelError: ``values`` lacks one of the arrays.
    """
    if structure.num_leaves == 1:
        wanted = [key]
    else:
        index = jax.tree.unflatten(structure, range(structure.num_leaves))
        flat = jax.tree_util.tree_flatten_with_path(index)[0]
        wanted = [f"{key}/{paths.path_string(keys)}" for keys, _ in flat]
    absent = [name for name in wanted if name not in values]
    if absent:
        raise ModelError(
            f"No value for {absent[0]!r} to bind into the model; there are {len(values)} values"
            f"{_near(absent[0], values)}."
        )
    return jax.tree.unflatten(structure, [values[name] for name in wanted])


def _near(path: str, known: Mapping[str, Any]) -> str:
    close = paths.nearest(path, known)
    return f", the nearest named {close[0]!r}" if close else ""
