"""What training makes of a model, on the model's own tree."""

from __future__ import annotations

from typing import Any

import optax
import pytest
from penzai import pz

import toolshed
from tests.zoo import ZOO
from toolshed.errors import ToolshedError


@pytest.fixture(scope="module")
def run() -> toolshed.Run:
    case = ZOO["mlp"]()
    run = toolshed.Run(case.model, optax.adam(1e-3), case.loss_fn, [case.batch])
    run.step(2)
    return run


@pytest.mark.parametrize("what", ["params", "grads", "updates", "opt_state/mu"])
def test_values_stand_where_the_parameters_are_and_their_paths_are_keys(run: Any, what: str):
    view = run.show(what)
    assert repr(view).startswith(f"{what} · step 2\n")
    leaves = list(view._root.leaves())
    assert len(leaves) == 4
    for leaf in leaves:
        assert leaf.path.startswith(what.split("/")[0])
        assert leaf.path in run.context
        assert f"‖·‖ {leaf.total.norm:.3g}" in repr(view) or leaf.total.count == 1
    assert ("Δ/θ" in repr(view)) == (what in ("grads", "updates"))


def test_the_ratio_is_that_of_the_update_to_its_parameter(run: Any):
    ratios = toolshed.insight.update_ratio(run.context.params, run.context.updates)
    for leaf in run.show("updates")._root.leaves():
        assert leaf.total.ratio == pytest.approx(ratios[leaf.path.removeprefix("updates/")])


def test_activations_show_dead_and_saturated_units(run: Any):
    text = repr(run.show("activations"))
    assert text.startswith("activations of 3 layers")
    assert "saturated" in text
    assert len(list(run.show("activations", layers=pz.nn.Elementwise)._root.leaves())) == 1


def test_selection_works_on_overlays(run: Any):
    assert len(list(run.show("grads", select="**.weights")._root.leaves())) == 2


def test_an_unknown_overlay_is_an_error_that_says_what_there_is(run: Any):
    with pytest.raises(
        ToolshedError,
        match=r"no 'opt_state/mo' to show; there is params, grads, .*Did you mean 'opt_state/mu'",
    ):
        run.show("opt_state/mo")
