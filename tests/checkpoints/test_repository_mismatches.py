"""A checkpoint that does not fit the state it is loaded into: told, cast, renamed, or taken in part."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.checkpoints.states import bits, large_state, small_state, two_checkpoints
from toolshed import TrainState
from toolshed.checkpoints import Repository
from toolshed.errors import CheckpointMismatchError, OptimizerWarning, PartialRestoreWarning

ADAM = optax.adam(0.1)


def test_a_mismatch_names_every_leaf_on_both_sides_and_what_helps(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    with pytest.raises(CheckpointMismatchError) as caught:
        repository.load(2, like=large_state().replace(params={"w": jnp.zeros(7), "v": jnp.zeros(2)}))
    assert str(caught.value).splitlines() == [
        f"Step 2 in {repository.path} does not fit this state: 2 of its leaves differ.",
        "other in dtype or shape (1):",
        "  params/w: saved float32[20000], expected float32[7]",
        "only expected (1):",
        "  params/v: float32[2]",
        "The model was probably built with other sizes or layers. Build it as it was, or pass partial=True to"
        " restore what fits and keep the rest of `like`.",
    ]


def with_params(**params: Any) -> TrainState:
    return small_state(9, params=params)


def test_another_dtype_is_refused_unless_it_is_cast(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(with_params(a=jnp.asarray([1.5, 1 + 2**-12])), wait=True)
    like = with_params(a=jnp.zeros(2, jnp.bfloat16))
    with pytest.raises(CheckpointMismatchError, match=r"saved float32.2., expected bfloat16.2.\n.*cast=True"):
        repository.load(like=like)
    loaded = repository.load(like=like, cast=True)
    assert loaded.params["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(loaded.params["a"], np.float32), [1.5, 1.0])
    with pytest.raises(CheckpointMismatchError, match=r"saved float32\[2\], expected float32\[3\]"):
        repository.load(like=with_params(a=jnp.zeros(3)), cast=True)
    whole = with_params(a=jnp.zeros(2)).replace(params={"a": jnp.zeros(2, jnp.int32)})
    with pytest.raises(CheckpointMismatchError, match="expected int32"):  # that would be no other precision
        repository.load(like=whole, cast=True)


def test_double_precision_is_not_cut_in_silence(tmp_path):
    with Repository(tmp_path) as repository, jax.enable_x64(True):
        state = small_state(9, params={"a": jnp.asarray([1 / 3], jnp.float64)}, loss_fn_state=None)
        repository.save(state, wait=True)
        assert bits(repository.load(like=state)) == bits(state)
    assert repository.manifest().environment["x64"] is True
    like = small_state(9, params={"a": jnp.asarray([0.0])}, loss_fn_state=None)
    with pytest.raises(CheckpointMismatchError, match="saved with jax_enable_x64, which is off here"):
        repository.load(like=like)
    with pytest.warns(UserWarning, match="saved with jax_enable_x64 on, now the other way"):
        loaded = repository.load(like=like, cast=True)
    assert float(loaded.params["a"][0]) == np.float32(1 / 3)


def test_what_fits_is_restored_and_the_rest_is_told(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(with_params(a=jnp.ones(2), b=jnp.ones(3), c=jnp.ones(4)), wait=True)
    like = small_state(1, params={"a": jnp.zeros(2), "b": jnp.full(5, 7.0), "d": jnp.full(6, 8.0)})
    found = repository.restore(like=like, partial=True)
    assert found.kept == ("params/b", "params/d")
    assert found.dropped == ("params/b", "params/c")
    assert "params/a" in found.restored
    assert found.differences == ()
    assert found.manifest.step == 9
    assert int(found.state.step) == 9
    values = {path: float(value[0]) for path, value in found.state.params.items()}
    assert values == {"a": 1.0, "b": 7.0, "d": 8.0}
    assert repr(found).startswith(
        "Restored(step 9: 6 leaves restored, 2 kept (params/b, params/d), 2 dropped"
    )
    message = (
        r"Of step 9 6 leaves were restored, 2 are as they were in `like` \(params/b, params/d\), 2 saved ones"
        r" were dropped \(params/b, params/c\)"
    )
    with pytest.warns(PartialRestoreWarning, match=message) as log:
        assert bits(repository.load(like=like, partial=True)) == bits(found.state)
    assert log[0].filename == __file__


def test_where_no_parameter_fits_partial_is_an_error_too(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(small_state(1, model_without_params=()), wait=True)
    like = small_state(2, params={"z": jnp.ones(1)}, model_without_params=())
    with pytest.raises(
        CheckpointMismatchError, match="No parameter fits, so there is nothing to restore"
    ) as caught:
        repository.load(like=like, partial=True)
    assert "pass partial" not in str(caught.value)


def test_a_model_with_other_names_is_loaded_by_a_rename(tmp_path):
    saved = small_state(3, params={"encoder/0/w": jnp.ones(2), "head/w": jnp.ones(3)}, optimizer_def=ADAM)
    params = {"backbone/0/w": jnp.zeros(2), "classifier/w": jnp.full(5, 7.0)}
    like = small_state(params=params, optimizer_def=ADAM)
    with Repository(tmp_path) as repository:
        repository.save(saved, wait=True)
    with pytest.raises(CheckpointMismatchError, match="encoder"):
        repository.load(like=like)
    found = repository.restore(like=like, rename={"encoder": "backbone", "head": None}, partial=True)
    assert "params/backbone/0/w" in found.restored
    assert "opt_state/0/mu/backbone/0/w" in found.restored
    assert [path for path in found.kept if path.startswith("params/")] == ["params/classifier/w"]
    assert [path for path in found.dropped if path.startswith("params/")] == ["params/head/w"]
    np.testing.assert_array_equal(found.state.params["backbone/0/w"], [1, 1])
    np.testing.assert_array_equal(found.state.params["classifier/w"], [7] * 5)
    whole = small_state(params={"a/0/w": jnp.zeros(2), "b/w": jnp.zeros(3)}, optimizer_def=ADAM)
    loaded = repository.load(like=whole, rename={"encoder": "a", "head": "b"})
    np.testing.assert_array_equal(loaded.params["b/w"], [1, 1, 1])


def test_another_optimiser_is_told_or_left_out(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(small_state(3, optimizer_def=ADAM), wait=True)
    with pytest.raises(CheckpointMismatchError, match="It was saved with the optimizer scale_by_adam"):
        repository.load(like=small_state(optimizer_def=optax.sgd(0.1, momentum=0.9)))
    with pytest.warns(OptimizerWarning, match="training goes on with .*0.25"):
        loaded = repository.load(like=small_state(optimizer_def=optax.adam(0.25)))
    assert int(loaded.step) == 3
    with pytest.warns(OptimizerWarning), pytest.warns(PartialRestoreWarning, match="opt_state/0/mu/mlp/w"):
        loaded = repository.load(like=small_state(optimizer_def=optax.sgd(0.1)), partial=True)
    assert bits(loaded)["params/mlp/w"] == bits(small_state(3))["params/mlp/w"]
