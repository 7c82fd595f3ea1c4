"""Layers whose outputs are noted: taps put into a penzai model by selection."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from penzai import pz

from toolshed import paths
from toolshed.errors import ModelError
from toolshed.structs import STATIC, struct
from toolshed.taps import tap


@struct()
class Tapped(pz.nn.Layer):
    """A layer whose output is noted in ``Context.interms``; otherwise it is the layer.

    Attributes:
      layer: what computes.
      name: what its output is called. Static.
    """

    layer: Any
    name: str = dataclasses.field(metadata=STATIC)

    def __call__(self, argument: Any, /, **side_inputs: Any) -> Any:
        """The layer's output."""
        return tap(self.name, self.layer(argument, **side_inputs))

    def treescope_color(self) -> str:
        return "#93c5fd"


def capture(model: Any, where: type | tuple[type, ...] | Callable[[Any], Any]) -> Any:
    """A copy of a penzai model that notes what the selected layers give, as ``Context.interms``.

    The keys are the layers' places in the model (``sublayers/1``), so that globs find them:
    ``context["interms/**"]``. Parameters keep their names. Layers inside a `pz.nn.LayerStack` cannot be
    captured one by one, because they run as one loop: select the stack.

    Args:
      model: a model, or a skeleton (``state.replace(model_without_params=capture(…))``).
      where: a class of layers, several, or a function from a penzai selection of the model to the
        selection of the layers that are meant.

    Raises:
      ModelError: nothing is selected, or something that is no layer.

    Example:
      >>> import jax, toolshed
      >>> from penzai import pz
      >>> from penzai.models.simple_mlp import MLP
      >>> model = toolshed.capture(MLP.from_config(jax.random.key(0), [2, 8, 1]), pz.nn.Elementwise)
    """
    selection = pz.select(model)
    if isinstance(where, (type, tuple)):
        chosen: Any = selection.at_instances_of(where)
    else:
        chosen = where(selection)
    found = chosen.selected_by_path
    if not found:
        raise ModelError(
            f"Nothing to capture: the selection {where!r} holds no layer of this {type(model).__name__}."
        )
    for keys, layer in found.items():
        if not isinstance(layer, pz.nn.Layer):
            raise ModelError(
                f"Only layers of pz.nn can be captured; at {paths.path_string(keys)} there is"
                f" {type(layer).__name__}."
            )
    return chosen.apply(
        lambda keys, layer: Tapped(layer, paths.path_string(keys) or "model"), with_keypath=True
    )
