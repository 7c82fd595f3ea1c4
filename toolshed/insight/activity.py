"""What goes on inside of a model on one batch: values between layers, dead units, saturation, attention."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool
from penzai import pz

from toolshed import paths
from toolshed.errors import ToolshedError
from toolshed.insight.objectives import Objective, objective
from toolshed.insight.statistics import leaf_statistics
from toolshed.insight.summary import LeafSummary
from toolshed.insight.tables import number, table
from toolshed.models.capture import Tapped, capture
from toolshed.state import TrainState
from toolshed.structs import STATIC, struct
from toolshed.taps import tap

FLAT = 0.01
"""An activation function whose slope is less steep than this is saturated."""

_SLOPE = "slope of "
_EXAMPLES = ("batch", "seq")  # names of axes that run over examples


@dataclasses.dataclass(frozen=True)
class Activation:
    """One value inside of a model, on one batch.

    A unit is what stands in one place of the last axis, or of a named array's axes other than ``batch``
    and ``seq``.

    Attributes:
      summary: its statistics.
      dead_units: which units are exactly 0 on every example of the batch, bool[units].
      saturated: the share of values at which the slope of the activation function is below `FLAT`, so that
        hardly any gradient passes; NaN for what is no element-wise function of penzai.
      value: the array; None unless values were asked for.
    """

    summary: LeafSummary
    dead_units: Bool[np.ndarray, " units"]
    saturated: float = math.nan
    value: Any = None

    @property
    def dead(self) -> float:
        """The share of units that never fire on the batch; NaN for what has no units."""
        return float(self.dead_units.mean()) if len(self.dead_units) else math.nan


class Activations(Mapping[str, Activation]):
    """Values inside of a model by name, in the order in which they were computed; from `activations`.

    A name with ``*`` gives those that match.
    """

    def __init__(self, found: Mapping[str, Activation]):
        self._by_name = dict(found)

    def __getitem__(self, name: str) -> Any:
        if name in self._by_name:
            return self._by_name[name]
        matching = paths.match(name, self._by_name) if paths.is_pattern(name) else []
        if not matching:
            raise paths.missing(name, self._by_name, "these activations")
        return Activations({one: self._by_name[one] for one in matching})

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        rows = [
            [
                name,
                one.summary.description,
                *(number(x) for x in (one.summary.mean, one.summary.std, one.summary.absmax)),
                f"{one.dead:.1%}" if one.dead >= 0 else "",
                f"{one.saturated:.1%}" if one.saturated >= 0 else "",
                ", ".join(one.summary.concerns),
            ]
            for name, one in self._by_name.items()
        ]
        head = ["", "", "mean", "std", "max |x|", "dead", "saturated", ""]
        return "\n".join([f"Activations of {len(rows):,} values", *table(head, rows, left=2)])


def activations(
    source: Any,
    state: TrainState,
    batch: Mapping[str, Any],
    *,
    select: type | tuple[type, ...] | Callable[[Any], Any] | None = None,
    values: bool = False,
) -> Activations:
    """Runs the loss function on a batch, and looks at values inside.

    Those are all that the model or the loss function taps (`toolshed.tap`), and what the selected layers
    of a penzai model give. ``select=pz.nn.Elementwise`` finds dead and saturated units;
    ``select=pz.nn.Softmax, values=True`` gives attention maps as arrays. Nothing changes; random numbers
    are those of the state's next step. Waits for the device.

    Args:
      source: a loss function, or the step or trainer that has it.
      state: whose model.
      batch: entries by name.
      select: layers, as `toolshed.capture` takes them: a class, several, or a function of a selection.
        Layers inside of a `pz.nn.LayerStack` run as one loop and cannot be looked at one by one.
      values: whether to keep the arrays.

    Raises:
      ToolshedError: nothing was selected or tapped.
      ModelError: what is selected is no layer.
      StateError: ``state`` is no state, or its arrays were donated.

    Example:
      >>> import jax, jax.numpy as jnp, optax, toolshed
      >>> from penzai import pz
      >>> from penzai.models.simple_mlp import MLP
      >>> def loss_fn(*, model, state, rng, x):
      ...     return model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features").mean(), state, {}
      >>> mlp = MLP.from_config(jax.random.key(0), [2, 3, 1])
      >>> state = toolshed.TrainState.initial_state(mlp, optax.sgd(0.1), jax.random.key(1))
      >>> batch = {"x": jnp.zeros((4, 2))}
      >>> seen = toolshed.insight.activations(loss_fn, state, batch, select=pz.nn.Elementwise)
      >>> list(seen), seen["sublayers/1"].dead  # 0 goes in, so no unit fires
      (['sublayers/1'], 1.0)
    """
    if select is not None and isinstance(state, TrainState):
        model = capture(state.model_without_params, select)
        watched = pz.select(model).at_instances_of(Tapped).apply(lambda one: _Watched(one.layer, one.name))
        state = state.replace(model_without_params=watched)
    interms = _interms(objective(source, state, batch), state.params)
    found = paths.flatten({name: value for name, value in interms.items() if not name.startswith(_SLOPE)})
    if not found:
        raise ToolshedError(
            "There is nothing to look at: no layer is selected, and nothing is tapped. Pass"
            " select=pz.nn.Elementwise, or note a value with toolshed.tap('name', value)."
        )
    summaries = leaf_statistics(found)
    silent = {name: _silent(value) for name, value in found.items()}
    flat = {name: _flat(interms[_SLOPE + name]) for name in found if _SLOPE + name in interms}
    silent, flat = jax.device_get((silent, flat))
    return Activations(
        {
            name: Activation(
                summaries[name],
                np.asarray(silent[name]),
                float(flat[name]) if name in flat else math.nan,
                value if values else None,
            )
            for name, value in found.items()
        }
    )


@struct()
class _Watched(pz.nn.Layer):
    """A layer whose output is tapped, and the slope of it if it is an element-wise function."""

    layer: Any
    name: str = dataclasses.field(metadata=STATIC)

    def __call__(self, argument: Any, /, **side_inputs: Any) -> Any:
        if not isinstance(self.layer, pz.nn.Elementwise):
            return tap(self.name, self.layer(argument, **side_inputs))
        ones = jax.tree.map(jnp.ones_like, argument)
        value, slope = jax.jvp(lambda x: self.layer(x, **side_inputs), (argument,), (ones,))
        tap(_SLOPE + self.name, slope)
        return tap(self.name, value)


@jax.jit
def _interms(loss: Objective, params: Any) -> dict[str, Any]:
    """What was noted while the loss was computed."""
    aux = loss.of_params(params, *loss.arguments)[1][1]
    return dict(aux.get("interms", {})) if isinstance(aux, Mapping) else {}


@jax.jit
def _silent(value: Any) -> jax.Array:
    """Which units are 0 on every example, bool[units]."""
    if hasattr(value, "named_shape"):
        value = value.with_positional_prefix()
        first = len(value.positional_shape)
        named = [first + i for i, name in enumerate(value.named_axes) if name in _EXAMPLES]
        axes, value = (*range(first), *named), value.data_array
    else:
        axes = tuple(range(value.ndim - 1))
    if len(axes) == value.ndim:
        return jnp.zeros(0, bool)
    return (value == 0).all(axis=axes).ravel()


@jax.jit
def _flat(slope: Any) -> jax.Array:
    """The share of slopes that are less steep than `FLAT`."""
    return jnp.mean(jnp.abs(getattr(slope, "data_array", slope)) < FLAT)
