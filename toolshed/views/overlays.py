"""Overlays: what training makes of a model, drawn on the model's own tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from penzai import pz

from toolshed import models, paths
from toolshed.errors import ToolshedError
from toolshed.insight import Activations, activations, optimizer_moments
from toolshed.insight.compare import ratio
from toolshed.state import TrainState
from toolshed.training import Context, Trainer
from toolshed.views.outline import Node, outline
from toolshed.views.show import View, narrowed
from toolshed.views.totals import add_up, measure, total_of

LAYERS = (pz.nn.Elementwise, pz.nn.Softmax, pz.nn.Linear)
"""The layers whose outputs are shown as activations where none are named."""


def overlay(
    trainer: Trainer,
    state: TrainState,
    context: Callable[[], Context],
    what: str,
    *,
    select: str | None = None,
    worst: int | None = None,
    layers: Any = LAYERS,
) -> View:
    """A state's model with other values in the places of its parameters; see `toolshed.Run.show`.

    Args:
      trainer: whose loss function gives activations.
      state: whose model.
      context: gives what the last step knew; called if that is needed.
      what: ``params``, ``grads``, ``updates``, ``opt_state/`` and the name of a moment, or ``activations``.
      select: as in `show`.
      worst: as in `show`.
      layers: whose outputs are activations, as in `toolshed.insight.activations`.

    Raises:
      ToolshedError: there is nothing of that name.
    """
    if what == "activations":
        found = _activations(trainer, state, context(), layers)
        return View(narrowed(_of_activations(found), select, worst))
    if what in ("params", "grads", "updates"):
        known = context() if what != "params" else None
        values = state.params if known is None else getattr(known, what)
        root = outline(state.model_without_params, values=values, prefix=what)
        measure(root)
        if known is not None:
            _set_ratios(root, known)
        return View(narrowed(root, select, worst), f"{what} · step {_done(state)}")
    return View(narrowed(_moment(state, what), select, worst), f"{what} · step {_done(state)}")


def _done(state: TrainState) -> str:
    return f"{int(np.asarray(state.step)):,}"


def _set_ratios(root: Node, context: Context) -> None:
    """Fills how large the update of each parameter is beside it."""
    both = outline({"params": context.params, "updates": context.updates})
    measure(both)
    norms = {leaf.path: leaf.total.norm for leaf in both.leaves()}
    for leaf in root.leaves():
        key = leaf.path.partition("/")[2]
        if f"updates/{key}" in norms:
            leaf.total.ratio = ratio(norms[f"updates/{key}"], norms[f"params/{key}"])
    add_up(root)


def _moment(state: TrainState, what: str) -> Node:
    """The outline of the model with what the optimiser keeps for each parameter."""
    moments = {f"opt_state/{name}": values for name, values in optimizer_moments(state).items()}
    if what not in moments:
        known = ["params", "grads", "updates", "activations", *moments]
        near = paths.nearest(what, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ToolshedError(f"There is no {what!r} to show; there is {', '.join(known)}.{hint}")
    values = moments[what]
    root = outline(state.model_without_params, values=values, prefix=what)
    places = _places(state, what, values)
    for leaf in root.leaves():
        leaf.path = places.get(leaf.path, leaf.path)
    measure(root)
    return root


def _places(state: TrainState, what: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Where the values really are, by the short path: ``opt_state/mu/w`` is ``opt_state/0/mu/w``."""
    ids = {id(leaf): path for path, leaf in paths.flatten({"opt_state": state.opt_state}).items()}
    return {f"{what}/{key}": ids[id(value)] for key, value in values.items() if id(value) in ids}


def _activations(trainer: Trainer, state: TrainState, context: Context, layers: Any) -> Activations:
    """The outputs of layers where there are such layers, and whatever is tapped."""
    skeleton = state.model_without_params
    if layers is LAYERS and not (
        models.is_model(skeleton) and len(pz.select(skeleton).at_instances_of(LAYERS))
    ):
        layers = None
    return activations(trainer, state, context.batch, select=layers)


def _of_activations(found: Activations) -> Node:
    """An outline of values inside of a model, with their dead and saturated units."""
    root = outline(dict.fromkeys(found))
    root.word, root.note = "activations", f"of {len(found):,} layers"
    summaries = {name: found[name] for name in found}
    for node in root.walk():
        node.name = node.name.replace("sublayers/", "").removesuffix("/sublayers")
        if node.children or node.path not in summaries:
            continue
        one = summaries[node.path]
        node.array, node.word = (), one.summary.description
        node.total = total_of(one.summary)
        words = [f"{one.dead:.0%} dead"] if one.dead > 0 else []
        words += [f"{one.saturated:.0%} saturated"] if one.saturated > 0 else []
        node.total.what = ", ".join(words)
    add_up(root)
    return root
