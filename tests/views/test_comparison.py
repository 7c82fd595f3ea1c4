"""Two trees side by side."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import toolshed
from tests.zoo import ZOO
from toolshed.errors import StateError


def line_of(view: Any, name: str) -> str:
    (line,) = [line for line in repr(view).splitlines() if line.split()[0] == name]
    return line


def test_both_norms_and_the_relative_change_stand_on_a_line():
    view = toolshed.compare(
        {"w": jnp.array([3.0, 4.0]), "b": jnp.ones(2)}, {"w": jnp.array([3.0, 4.5]), "b": jnp.ones(2)}
    )
    # ‖(3, 4)‖ = 5, ‖(0, 0.5)‖ / 5 = 0.1
    line = line_of(view, "w")
    assert "‖·‖ 5 " in line
    assert "‖·‖ 5.41" in line
    assert " 0.1 " in line
    assert "at [1]: 4 → 4.5" in line
    assert "the same" in line_of(view, "b")
    assert "1 of 2 arrays differ" in line_of(view, "dict")


def test_what_only_one_tree_has_says_so():
    view = toolshed.compare({"a": jnp.ones(2), "c": jnp.ones(3)}, {"b": {"d": jnp.ones(2)}, "c": jnp.ones(4)})
    assert "only in a" in line_of(view, "a")
    assert "only in b" in line_of(view, "b/d")
    assert "f32[3] → f32[4]" in line_of(view, "c")


def test_the_largest_relative_change_comes_first():
    a = {"x": jnp.ones(2), "y": jnp.ones(2), "z": jnp.ones(2)}
    b = {"x": jnp.ones(2), "y": jnp.ones(2) * 1.5, "z": jnp.ones(2) * 1.1}
    names = [line.split()[0] for line in repr(toolshed.compare(a, b, worst=2)).splitlines()]
    assert names == ["dict", "y", "z"]


def test_states_and_models_before_and_after_a_step():
    case = ZOO["mlp"]()
    state = toolshed.TrainState.initial_state(case.model, optax.adam(1e-3), jax.random.key(0))
    after, _ = toolshed.build_train_step(case.loss_fn)(state, case.batch)
    assert "= 0" in line_of(toolshed.compare(state, after), "step")
    assert "4 of 4 arrays differ" in repr(toolshed.compare(state.model, after.model))
    assert "differ" not in repr(toolshed.compare(state.model, state.model))


def test_a_deleted_array_is_an_error_that_names_it():
    gone = jnp.ones(2) + 1
    gone.delete()
    with pytest.raises(StateError, match="The array at w of a is deleted"):
        toolshed.compare({"w": gone}, {"w": jnp.ones(2)})
