"""penzai models as they are now: ``pz.nn`` layers, ``pz.Parameter`` and ``pz.StateVariable``.

A variable is known by its label, which penzai makes out of the names of the layers around it. Labels
that are not strings get a string, and labels that penzai draws from a Python object's id, which
change whenever the model is built anew, are replaced by the variable's place in the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from penzai import pz
from penzai.core import variables

from toolshed import paths
from toolshed.errors import ModelError
from toolshed.models.adapter import Bound, Split, add_arrays, flatten_value, unflatten_value
from toolshed.structs import STATIC, struct


class _Metadata(dict[Any, Any]):
    """A variable's metadata, as part of a skeleton's type: comparable also where it holds arrays."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict) or self.keys() != other.keys():
            return False
        return all(self[key] is other[key] or np.array_equal(self[key], other[key]) for key in self)


class _Slot:
    """What the two kinds of slot share: all of a variable but its arrays."""

    label: Any
    _penzai_kind: ClassVar[type]

    def __eq__(self, other: object) -> bool:
        # Equal to penzai's own slot of the same label, so that pz.bind_variables fills this one too.
        return isinstance(other, self._penzai_kind) and getattr(other, "label", None) == self.label

    def __hash__(self) -> int:
        return hash((self.label,))  # as penzai's slots hash

    def __treescope_repr__(self, path: Any, subtree_renderer: Any) -> Any:
        return NotImplemented  # toolshed.views draws it


@struct(eq=False)
class ParameterSlot(_Slot, pz.ParameterSlot):
    """An empty place for one trainable parameter.

    Attributes:
      label: the parameter's label.
      key: its path in ``TrainState.params``.
      structure: how its arrays make up its value: the axis names of a named array.
      description: dtype and shape in words.
      metadata: the parameter's metadata.
    """

    label: Any = dataclasses.field(metadata=STATIC)
    key: str = dataclasses.field(metadata=STATIC)
    structure: Any = dataclasses.field(metadata=STATIC)
    description: str = dataclasses.field(metadata=STATIC)
    metadata: dict[Any, Any] = dataclasses.field(metadata=STATIC)

    _penzai_kind: ClassVar[type] = pz.ParameterSlot


@struct(eq=False)
class StateVariableSlot(_Slot, pz.StateVariableSlot):
    """An empty place for one state variable; the attributes are those of `ParameterSlot`."""

    label: Any = dataclasses.field(metadata=STATIC)
    key: str = dataclasses.field(metadata=STATIC)
    structure: Any = dataclasses.field(metadata=STATIC)
    description: str = dataclasses.field(metadata=STATIC)
    metadata: dict[Any, Any] = dataclasses.field(metadata=STATIC)

    _penzai_kind: ClassVar[type] = pz.StateVariableSlot


_ParameterValue: Any = pz.ParameterValue


@struct(has_implicitly_inherited_fields=True)
class FrozenParameter(_ParameterValue):
    """A parameter that its metadata declares not trainable; its value stays in the skeleton."""


def _is_variable_node(node: Any) -> bool:
    return isinstance(node, (pz.ParameterSlot, pz.StateVariableSlot, FrozenParameter))


def _string_key(label: Any, place: str) -> str:
    if isinstance(label, str):
        return label
    if isinstance(label, variables.AutoStateVarLabel):
        return place
    if isinstance(label, variables.ScopedStateVarLabel):
        return f"{'state' if label.group is None else label.group}/{label.index}"
    if isinstance(label, tuple):
        return "/".join(map(str, label))
    return str(label)


class _Labels:
    """The variables met so far, to find two that claim one label or one key."""

    def __init__(self) -> None:
        self._first: dict[tuple[type, Any], tuple[Any, str]] = {}
        self._keys: dict[tuple[type, str], tuple[Any, str]] = {}

    def key_of(self, variable: Any, place: str) -> str:
        """The path for a variable's values; for one without a label, the first place where it stands."""
        if isinstance(variable.label, variables.AutoStateVarLabel):
            place = self._first.get((type(variable), variable.label), (None, place))[1]
        return _string_key(variable.label, place)

    def is_new(self, variable: Any, key: str, place: str) -> bool:
        kind = type(variable)
        if (kind, variable.label) in self._first:
            first, first_place = self._first[kind, variable.label]
            if first is not variable:
                raise ModelError(
                    f"Two different {kind.__name__}s have the label {variable.label!r}: at {first_place}"
                    f" and at {place}. Rename one, or put the same object in both places to share it."
                )
            return False
        if (kind, key) in self._keys:
            label, other_place = self._keys[kind, key]
            raise ModelError(
                f"The labels {label!r} at {other_place} and {variable.label!r} at {place} both become"
                f" the path {key!r}. Rename one of them."
            )
        self._first[kind, variable.label] = (variable, place)
        self._keys[kind, key] = (variable.label, place)
        return True


class PenzaiV2:
    """The adapter; see `toolshed.models.adapter.ModelLibrary` for what its methods promise."""

    name = "penzai"

    def recognises(self, tree: Any) -> bool:
        if isinstance(tree, pz.nn.Layer):
            return True
        leaves = jax.tree.leaves(tree, is_leaf=_is_variable_node)
        return any(_is_variable_node(leaf) or isinstance(leaf, pz.AbstractVariable) for leaf in leaves)

    def split(self, model: Any) -> Split:
        found, treedef = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_variable_node)
        labels, params, model_state, nodes = _Labels(), {}, {}, []
        for keys, leaf in found:
            place = paths.path_string(keys) or "the root"
            if isinstance(leaf, (pz.ParameterSlot, pz.StateVariableSlot)):
                raise ModelError(
                    f"The model has an empty slot for {leaf.label!r} at {place}: it was built without"
                    " init_base_rng, or is a skeleton. Pass a model whose parameters have values."
                )
            if not isinstance(leaf, pz.AbstractVariable):
                nodes.append(leaf)
                continue
            if not isinstance(leaf, (pz.Parameter, pz.StateVariable)):
                raise ModelError(
                    f"Unknown kind of variable {type(leaf).__name__} at {place}; toolshed knows"
                    " pz.Parameter and pz.StateVariable."
                )
            key = labels.key_of(leaf, place)
            value = flatten_value(key, leaf.value, where=place)
            is_new = labels.is_new(leaf, key, place)
            if isinstance(leaf, pz.Parameter) and not leaf.metadata.get("trainable", True):
                nodes.append(
                    FrozenParameter(label=leaf.label, value=leaf.value, metadata=_Metadata(leaf.metadata))
                )
                continue
            slot, values = (
                (ParameterSlot, params)
                if isinstance(leaf, pz.Parameter)
                else (StateVariableSlot, model_state)
            )
            label = key if isinstance(leaf.label, variables.AutoStateVarLabel) else leaf.label
            nodes.append(slot(label, key, value.structure, value.description, _Metadata(leaf.metadata)))
            if is_new:
                add_arrays(values, value.arrays, place)
        return Split(treedef.unflatten(nodes), params, model_state)

    def bind(
        self, skeleton: Any, params: Mapping[str, Any], model_state: Mapping[str, Any], *, frozen: bool
    ) -> Bound:
        nodes, treedef = jax.tree.flatten(skeleton, is_leaf=_is_variable_node)
        states: dict[str, tuple[pz.StateVariable, StateVariableSlot]] = {}
        shared: dict[Any, Any] = {}
        for i, node in enumerate(nodes):
            if isinstance(node, StateVariableSlot):
                if node.key not in states:
                    value = unflatten_value(node.key, node.structure, model_state)
                    variable = pz.StateVariable(value, label=node.label, metadata=dict(node.metadata))
                    states[node.key] = (variable, node)
                nodes[i] = states[node.key][0]
            elif isinstance(node, ParameterSlot):
                value = unflatten_value(node.key, node.structure, params)
                nodes[i] = _parameter(node, value, shared, frozen=frozen)
            elif isinstance(node, FrozenParameter):
                nodes[i] = _parameter(node, node.value, shared, frozen=frozen)
        return Bound(treedef.unflatten(nodes), lambda: dict(_read(states)))

    def parameter_order(self, skeleton: Any) -> list[str]:
        nodes = jax.tree.leaves(skeleton, is_leaf=_is_variable_node)
        return [node.key for node in nodes if isinstance(node, ParameterSlot)]

    def evaluation_mode(self, skeleton: Any) -> Any:
        dropouts = pz.select(skeleton).at_instances_of(pz.nn.StochasticDropout)
        return dropouts.apply(lambda layer: layer.disable())


def _parameter(node: Any, value: Any, shared: dict[Any, Any], *, frozen: bool) -> Any:
    """One parameter for a slot; the same object wherever the same label stands."""
    if node.label not in shared:
        make = pz.ParameterValue if frozen else pz.Parameter
        shared[node.label] = make(label=node.label, value=value, metadata=dict(node.metadata))
    return shared[node.label]


def _read(states: Mapping[str, tuple[pz.StateVariable, StateVariableSlot]]) -> Iterator[tuple[str, Any]]:
    for key, (variable, slot) in states.items():
        leaves, structure = jax.tree.flatten(variable.value)
        if structure != slot.structure:
            raise ModelError(
                f"The state variable {key!r} changed its structure during the forward pass: it was"
                f" {slot.description}, now it is {paths.describe(variable.value)}. Assign a value of"
                " the same structure (for a named array: the same axis names in the same order)."
            )
        yield from unflatten_names(key, structure, leaves)


def unflatten_names(key: str, structure: Any, leaves: list[Any]) -> Iterator[tuple[str, Any]]:
    """The arrays of one value with the names that `flatten_value` gives them."""
    yield from flatten_value(key, jax.tree.unflatten(structure, leaves), where=key).arrays.items()
