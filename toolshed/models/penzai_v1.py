"""penzai's first API, which it keeps as ``penzai.deprecated.v1``.

A v1 model is a tree without mutable variables: a parameter is a Struct with a value and a name, and
whatever else changes during the forward pass is handled by effects, in the loss function. So a v1
model has no model state here.

The package is imported only when a v1 model shows up, which means that it is imported already.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax
from penzai import pz

from toolshed import paths
from toolshed.errors import ModelError
from toolshed.models.adapter import Bound, Split, add_arrays, flatten_value, unflatten_value
from toolshed.structs import STATIC, struct


@struct()
class ValueSlot(pz.Struct):
    """The empty place of one parameter's value, inside the parameter.

    Attributes:
      structure: how its arrays make up its value: the axis names of a named array.
      description: dtype and shape in words.
    """

    structure: Any = dataclasses.field(metadata=STATIC)
    description: str = dataclasses.field(metadata=STATIC)

    def __treescope_repr__(self, path: Any, subtree_renderer: Any) -> Any:
        return NotImplemented  # toolshed.views draws it


class PenzaiV1:
    """The adapter; see `toolshed.models.adapter.ModelLibrary` for what its methods promise."""

    name = "penzai v1"

    def recognises(self, tree: Any) -> bool:
        v1 = sys.modules.get("penzai.deprecated.v1.pz")
        if v1 is None:
            return False
        kinds = (v1.nn.Parameter, v1.nn.FrozenParameter, v1.nn.UninitializedParameter)
        is_parameter = lambda node: isinstance(node, kinds)  # noqa: E731
        return isinstance(tree, v1.Layer) or any(
            map(is_parameter, jax.tree.leaves(tree, is_leaf=is_parameter))
        )

    def split(self, model: Any) -> Split:
        v1 = sys.modules["penzai.deprecated.v1.pz"]
        kinds = (v1.nn.Parameter, v1.nn.UninitializedParameter)
        found, treedef = jax.tree_util.tree_flatten_with_path(
            model, is_leaf=lambda node: isinstance(node, kinds)
        )
        params, places, nodes = {}, {}, []
        for keys, leaf in found:
            place = paths.path_string(keys) or "the root"
            if isinstance(leaf, v1.nn.UninitializedParameter):
                raise ModelError(
                    f"The parameter {leaf.name!r} at {place} has no value yet. Call"
                    " pz.nn.initialize_parameters(model, key) first."
                )
            if not isinstance(leaf, v1.nn.Parameter):
                nodes.append(leaf)
                continue
            if leaf.name in places:
                raise ModelError(
                    f"Two parameters have the name {leaf.name!r}: at {places[leaf.name]} and at {place}."
                    " Rename one (pz.nn.add_parameter_prefix), or share it with pz.nn.mark_shareable."
                )
            places[leaf.name] = place
            value = flatten_value(leaf.name, leaf.value, where=place)
            add_arrays(params, value.arrays, place)
            nodes.append(dataclasses.replace(leaf, value=ValueSlot(value.structure, value.description)))
        return Split(treedef.unflatten(nodes), params, {})

    def bind(
        self, skeleton: Any, params: Mapping[str, Any], model_state: Mapping[str, Any], *, frozen: bool
    ) -> Bound:
        del model_state, frozen  # v1 models are immutable and hold no state of their own
        v1 = sys.modules["penzai.deprecated.v1.pz"]
        is_parameter = lambda node: isinstance(node, v1.nn.Parameter)  # noqa: E731

        def fill(node: Any) -> Any:
            if not (is_parameter(node) and isinstance(node.value, ValueSlot)):
                return node
            return dataclasses.replace(node, value=unflatten_value(node.name, node.value.structure, params))

        return Bound(jax.tree.map(fill, skeleton, is_leaf=is_parameter), dict)

    def parameter_order(self, skeleton: Any) -> list[str]:
        v1 = sys.modules["penzai.deprecated.v1.pz"]
        is_parameter = lambda node: isinstance(node, v1.nn.Parameter)  # noqa: E731
        return [node.name for node in jax.tree.leaves(skeleton, is_leaf=is_parameter) if is_parameter(node)]

    def evaluation_mode(self, skeleton: Any) -> Any:
        v1 = sys.modules["penzai.deprecated.v1.pz"]
        dropouts = pz.select(skeleton).at_instances_of(v1.nn.StochasticDropout)
        return dropouts.apply(lambda layer: v1.nn.Identity())
