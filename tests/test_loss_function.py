"""What a loss function took and returned is checked, and every breach is told in one sentence."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest
from penzai import pz

from toolshed.errors import BatchError, LossError
from toolshed.loss_function import check_batch, check_result, name_of

X = jnp.ones((2, 3))


def two_entries(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
    return jnp.mean(x - y), state, {}


def anything(*, model: Any, state: Any, rng: Any, **batch: Any) -> Any:
    return jnp.mean(batch["x"]), state, {}


def one_optional(*, model: Any, state: Any, rng: Any, x: Any, y: Any = None) -> Any:
    return jnp.mean(x), state, {}


class Callable:
    def __call__(self, *, model: Any, state: Any, rng: Any, x: Any) -> Any:
        return jnp.mean(x), state, {}


@pytest.mark.parametrize(
    ("loss_fn", "batch"),
    [
        (two_entries, {"x": X, "y": X}),
        (two_entries, {"y": X, "x": X}),
        (anything, {"x": X}),
        (anything, {"x": X, "whatever": X}),
        (one_optional, {"x": X}),
        (one_optional, {"x": X, "y": X}),
        (Callable(), {"x": X}),
    ],
)
def test_a_batch_of_the_names_that_the_function_takes_is_right(loss_fn, batch):
    check_batch(loss_fn, batch)


@pytest.mark.parametrize(
    ("loss_fn", "batch", "message"),
    [
        (two_entries, {"x": X}, r"two_entries cannot be called with this batch: missing .*'y'.*batch has x,"),
        (two_entries, {}, r"missing a required argument: 'x'.*the batch has no entry"),
        (two_entries, {"x": X, "y": X, "z": X}, r"unexpected keyword argument 'z'.*the batch has x, y, z"),
        (Callable(), {"z": X}, r"^Callable cannot be called"),
        (anything, {"x": X, "rng": X}, r"^The batch has an entry 'rng', a name that the step itself fills\."),
        (anything, {"model": X}, r"^The batch has an entry 'model'"),
        (anything, {"state": X}, r"^The batch has an entry 'state'"),
        (two_entries, (X, X), r"^Expected a batch as a dict by name.*got tuple\. Wrap it"),
        (two_entries, X, r"^Expected a batch as a dict by name.*got float32\[2,3\]\."),
        (two_entries, {0: X, 1: X}, r"^Expected a batch as a dict by name"),
        (two_entries, None, r"got NoneType"),
    ],
)
def test_any_other_batch_is_named_with_what_the_function_takes(loss_fn, batch, message):
    with pytest.raises(BatchError, match=message):
        check_batch(loss_fn, batch)


def test_a_loss_of_no_axis_is_taken_as_it_is_named_or_not():
    for loss in (jnp.float32(2), jnp.bfloat16(2), 2.0, pz.nx.wrap(jnp.float32(2))):
        checked, state, aux = check_result(two_entries, (loss, None, {"a": 1}), None)
        assert (float(checked), checked.shape) == (2.0, ())
        assert state is None
        assert aux == {"a": 1}


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (jnp.ones(2), r"^two_entries returned a loss of float32\[2\]; only a scalar can be differentiated\."),
        (jnp.ones((1, 1)), r"a loss of float32\[1,1\]; only a scalar"),
        (pz.nx.ones({"batch": 2}), r"a loss of float32\[batch:2\]; only a scalar"),
        (jnp.int32(1), r"a loss of int32\[\]; expected a real floating-point scalar"),
        (jnp.array(True), r"a loss of bool\[\]; expected a real"),
        (1, r"a loss of int32\[\]; expected a real"),
        (jnp.complex64(1), r"a loss of complex64\[\]; expected a real"),
        (None, r"a loss of NoneType"),
        ("0.5", r"a loss of str"),
        ({"loss": 1.0}, r"a loss of dict"),
    ],
)
def test_any_other_loss_is_an_error_with_its_type(loss, message):
    with pytest.raises(LossError, match=message):
        check_result(two_entries, (loss, None, {}), None)


@pytest.mark.parametrize(
    ("result", "came"),
    [
        ((jnp.float32(1), None), "a tuple of 2"),
        ((jnp.float32(1), None, {}, {}), "a tuple of 4"),
        (jnp.float32(1), r"float32\[\]"),
        ([jnp.float32(1), None, {}], "list"),
        (None, "NoneType"),
    ],
)
def test_a_result_that_is_not_a_tuple_of_three_is_an_error(result, came):
    with pytest.raises(LossError, match=rf"^two_entries returned {came}; expected \(loss, new_state, aux\)"):
        check_result(two_entries, result, None)


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, {"n": 1.0}), ({"n": 1.0}, None), ({"n": 1.0}, {"m": 1.0}), ((1.0, 2.0), [1.0, 2.0])],
)
def test_a_state_of_another_structure_is_an_error(before, after):
    with pytest.raises(LossError, match=r"another structure: it got .*, it returned .*Return `state` itself"):
        check_result(two_entries, (jnp.float32(1), after, {}), before)
    check_result(two_entries, (jnp.float32(1), before, {}), before)


@pytest.mark.parametrize("after", [jnp.ones(3), jnp.ones(2, jnp.int32)])
def test_a_state_of_another_shape_or_dtype_is_an_error(after):
    """Otherwise the next step would be compiled anew, at each step if the state grows."""
    with pytest.raises(LossError, match=r"new state"):
        check_result(two_entries, (jnp.float32(1), {"seen": after}, {}), {"seen": jnp.ones(2)})


def test_a_function_is_called_by_its_name_and_an_object_by_its_class():
    assert name_of(two_entries) == "two_entries"
    assert name_of(Callable()) == "Callable"
