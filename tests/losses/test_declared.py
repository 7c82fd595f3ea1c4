"""Losses declared by paths: their values, weights, masks, and the sum that is trained on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz

import toolshed
from tests import zoo
from tests.training.by_hand import batches, differing, new_state
from toolshed.errors import ContextKeyError, LossError
from toolshed.losses import Loss, collection, correlation


def forward(*, model: Any, rng: jax.Array, x: jax.Array, **rest: Any) -> jax.Array:
    del rng, rest
    return model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")


def values_of(preds: Any, **batch: Any) -> dict[str, Any]:
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}
    return {"batch": arrays, "preds": jnp.asarray(preds), "aux": {}, "interms": {}, "params": {}}


def value(loss: Loss, values: dict[str, Any]) -> float:
    return float(loss.value("fit", values))


# squared errors 0.25, 1 and 4
ERRORS = values_of([0.5, 1.0, 2.0], y=[0.0, 0.0, 0.0], w=[1.0, 2.0, 1.0])


def test_a_loss_is_the_mean_over_examples():
    assert value(Loss(optax.squared_error, "preds", "batch/y"), ERRORS) == 5.25 / 3


def test_a_mean_is_weighted_by_the_examples_weights():
    loss = Loss(optax.squared_error, "preds", "batch/y", sample_weight="batch/w")
    assert value(loss, ERRORS) == 1.5625  # (0.25 + 2 + 4) / 4


def test_masked_examples_stay_out_whatever_they_hold():
    values = values_of([0.5, np.nan, 2.0], y=[0.0, 0.0, 0.0], mask=[True, False, True])
    loss = Loss(optax.squared_error, "preds", "batch/y")
    assert value(loss, values) == 4.25 / 2
    assert np.isnan(value(Loss(optax.squared_error, "preds", "batch/y", mask=False), values))


@pytest.mark.parametrize(
    ("pred", "target"), [(np.inf, 0.0), (np.nan, 0.0), (1.0, np.nan)], ids=["inf", "nan", "no target"]
)
def test_masked_examples_have_no_gradient(pred, target):
    def of(preds: jax.Array) -> jax.Array:
        values = values_of(preds, y=[0.0, target, 0.0], mask=[True, False, True])
        return Loss(optax.squared_error, "preds", "batch/y").value("fit", values)

    assert jax.grad(of)(jnp.array([0.5, pred, 2.0])).tolist() == [0.5, 0.0, 2.0]


def test_tokens_are_masked_one_by_one():
    def of(logits: jax.Array) -> jax.Array:
        values = values_of(logits, label=[[0, 1], [1, -1]], mask=[[True, False], [True, True]])
        values["batch"]["mask"] = values["batch"]["mask"].at[1, 1].set(False)
        loss = Loss(optax.softmax_cross_entropy_with_integer_labels, "preds", "batch/label")
        return loss.value("xent", values)

    logits = jnp.zeros((2, 2, 3)).at[0, 1].set(jnp.nan)
    value, grad = jax.value_and_grad(of)(logits)
    assert float(value) == pytest.approx(np.log(3), rel=1e-6)
    assert np.isfinite(grad).all()
    assert not np.asarray(grad)[[0, 1], [1, 1]].any()


def test_parameters_are_no_examples_whatever_their_shape():
    values = {**ERRORS, "batch": {"mask": jnp.array([True, False, False])}}
    values["params"] = {"w": jnp.array([1.0, 2.0, 3.0])}
    loss = Loss(lambda params: sum(w.sum() for w in params.values()), "params/*")
    assert value(loss, values) == 6


def test_a_batch_of_padding_alone_has_no_loss():
    values = values_of([np.nan, 1.0], y=[0.0, 0.0], mask=[False, False])
    assert value(Loss(optax.squared_error, "preds", "batch/y"), values) == 0


def test_a_mask_covers_the_later_axes_of_the_losses():
    values = values_of([[1.0, 3.0], [100.0, 100.0]], y=[[0.0, 0.0], [0.0, 0.0]], mask=[True, False])
    assert value(Loss(optax.squared_error, "preds", "batch/y"), values) == 5.0


def test_a_mask_has_a_path():
    values = values_of([1.0, 3.0], y=[0.0, 0.0], real=[False, True])
    assert value(Loss(optax.squared_error, "preds", "batch/y", mask="batch/real"), values) == 9.0


def test_a_function_that_takes_the_mask_reduces_by_itself():
    x, y, mask = np.array([1.0, 2.0, 5.0, 9.0]), np.array([2.0, 1.0, 4.0, -50.0]), [True, True, True, False]
    loss = Loss(correlation, "preds", "batch/y")
    expected = 1 - np.corrcoef(x[:3], y[:3])[0, 1]
    assert value(loss, values_of(x, y=y, mask=mask)) == pytest.approx(expected, rel=1e-5)
    assert value(loss, values_of(x[:3], y=y[:3])) == pytest.approx(expected, rel=1e-5)


def test_options_are_handed_on():
    loss = Loss(optax.huber_loss, "preds", "batch/y", delta=1.0)
    assert value(loss, values_of([3.0], y=[0.0])) == 2.5  # delta * (|e| - delta / 2)


def test_named_arrays_come_as_arrays():
    values = {**ERRORS, "preds": pz.nx.wrap(ERRORS["preds"], "batch")}
    assert value(Loss(optax.squared_error, "preds", "batch/y"), values) == 5.25 / 3


@pytest.mark.parametrize(
    ("loss", "values", "message"),
    [
        (
            Loss(optax.squared_error, "preds", "batch/y"),
            values_of([1.0, 2.0], y=[0.0, 0.0], mask=[True, False, True]),
            r"^batch/mask is bool\[3\], and the loss 'fit' has float32\[2\] values: it needs their first",
        ),
        (
            Loss(optax.squared_error, "preds", "batch/y"),
            values_of([[1.0, 2.0]], y=[[0.0, 0.0]], mask=[True, False]),
            r"^batch/mask is bool\[2\], and the loss 'fit' has float32\[1,2\] values",
        ),
        (
            Loss(optax.squared_error, "preds", "batch/y", sample_weight="batch/w"),
            values_of([1.0, 2.0], y=[0.0, 0.0], w=[1.0]),
            r"^batch/w is float32\[1\], and the loss 'fit' has float32\[2\] values",
        ),
        (
            Loss(lambda x: x.mean(), "preds", mask="batch/real"),
            values_of([1.0, 2.0], real=[True, False]),
            r"^The loss 'fit' has the mask 'batch/real', but <lambda> gives a scalar: what was masked",
        ),
        (
            Loss(lambda x, mask: x, "preds"),
            values_of([1.0, 2.0]),
            r"^<lambda> took the mask and gave float32\[2\] for the loss 'fit'; expected a scalar",
        ),
    ],
)
def test_a_mask_that_does_not_line_up_is_an_error(loss, values, message):
    with pytest.raises(LossError, match=message):
        loss.value("fit", values)


def test_a_path_that_leads_nowhere_is_an_error_that_names_near_ones():
    with pytest.raises(ContextKeyError, match=r"^No 'batch/z' in what a loss can see\. Did you mean 'batch/"):
        Loss(optax.squared_error, "preds", "batch/z").value("fit", ERRORS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Loss(3, "preds"), r"^Expected a function of arrays, got int 3\.$"),
        (lambda: Loss(optax.squared_error), r"^Expected the paths of what squared_error takes, as strings"),
        (lambda: Loss(optax.squared_error, "preds", 3), r"as strings; got \('preds', 3\)\.$"),
        (lambda: Loss(optax.squared_error, "preds", weight="1"), r"^weight is str; expected a number or a"),
        (lambda: Loss(optax.squared_error, "preds", mask=True), r"^mask is True; expected a path, None for"),
        (
            lambda: collection(3, fit=Loss(optax.l2_loss, "preds")),
            r"^Expected the forward pass as a function",
        ),
        (lambda: collection(forward), r"^Expected at least one loss by name: collection\(forward, fit="),
        (
            lambda: collection(forward, fit=optax.l2_loss),
            r"^The loss 'fit' is function; expected a toolshed\.losses\.Loss\.$",
        ),
    ],
)
def test_a_wrong_declaration_is_an_error_at_once(make, message):
    with pytest.raises(LossError, match=message):
        make()


# --- in the step ------------------------------------------------------------------------------------


def declared(**options: Any) -> Any:
    return collection(forward, fit=Loss(optax.squared_error, "preds", "batch/y", **options))


def test_training_on_a_declared_loss_is_training_on_the_loss_itself():
    case = zoo.mlp()
    ends = []
    for loss_fn in (case.loss_fn, declared()):
        step, state = toolshed.build_train_step(loss_fn), new_state(case)
        for batch in batches(case, 5):
            state, _ = step(state, batch)
        ends.append(state)
    assert differing(ends[0].params, ends[1].params) == []


def test_the_context_has_each_loss_and_their_weighted_sum():
    case = zoo.mlp()
    weights = "params/**/Linear.weights"
    loss_fn = collection(
        forward,
        fit=Loss(optax.squared_error, "preds", "batch/y", weight=2),
        decay=Loss(optax.tree.norm, weights, weight=0.1),
    )
    state = new_state(case)
    _, context = toolshed.build_train_step(loss_fn)(state, case.batch)
    norm = np.sqrt(sum(float((w**2).sum()) for w in context[weights].values()))
    fit = float(np.mean((context.preds - np.asarray(case.batch["y"])) ** 2))
    assert float(context["loss_states/fit"]) == pytest.approx(fit, rel=1e-6)
    assert float(context["loss_states/decay"]) == pytest.approx(norm, rel=1e-6)
    assert float(context.loss_total) == pytest.approx(2 * fit + 0.1 * norm, rel=1e-6)
    grads = toolshed.build_train_step(collection(forward, decay=Loss(optax.tree.norm, weights)))
    path = "mlp/Affine_0/Linear.weights"
    found = grads(state, case.batch)[1].grads[path]
    np.testing.assert_allclose(found, state.params[path] / norm, rtol=1e-5)  # d|w|/dw = w / |w|


def test_a_weight_may_be_a_schedule_of_the_step():
    case = zoo.mlp()
    step = toolshed.build_train_step(declared(weight=lambda step: 10.0 * (step + 1)))
    state = new_state(case)
    for number in range(3):
        state, context = step(state, case.batch)
        ratio = float(context.loss_total) / float(context["loss_states/fit"])
        assert ratio == pytest.approx(10 * (number + 1), rel=1e-6)
    assert step.traces == 1


def test_a_forward_pass_may_give_a_dict():
    case = zoo.mlp()

    def dict_forward(**arguments: Any) -> dict[str, Any]:
        return {"logits": forward(**arguments), "preds": jnp.zeros(3)}

    loss_fn = collection(dict_forward, fit=Loss(optax.squared_error, "aux/logits", "batch/y"))
    _, context = toolshed.build_train_step(loss_fn)(new_state(case), case.batch)
    assert context["aux/logits"].shape == case.batch["y"].shape
    assert context.preds.shape == (3,)


def test_a_loss_may_look_at_what_was_tapped():
    case = zoo.mlp()

    def tapping(**arguments: Any) -> Any:
        return toolshed.tap("out", forward(**arguments))

    loss_fn = collection(tapping, size=Loss(jnp.square, "interms/out"))
    _, context = toolshed.build_train_step(loss_fn)(new_state(case), case.batch)
    assert float(context.loss_total) == pytest.approx(float(np.square(context.preds).mean()), rel=1e-6)
    assert context["interms/out"].shape == context.preds.shape


def test_gradient_strategies_can_be_compared_on_it():
    case, weights = zoo.mlp(), "params/**/Linear.weights"
    losses = {"fit": Loss(optax.squared_error, "preds", "batch/y"), "decay": Loss(optax.tree.norm, weights)}
    loss_fn, backprop = collection(forward, **losses), toolshed.gradients.backprop
    found = toolshed.gradients.compare(backprop, backprop, loss_fn, new_state(case), case.batch)
    assert found.norm_ratio_of_all == 1


@pytest.mark.parametrize("n", [2, 4])
def test_it_is_the_same_in_parts_and_as_a_whole(n):
    case = zoo.mlp()
    batch = {**case.batch, "mask": np.arange(8) < 5}  # uneven parts, and one of padding alone
    grads = [
        toolshed.build_train_step(declared(), gradient_strategy=strategy)(new_state(case), batch)[1].grads
        for strategy in (toolshed.gradients.backprop, toolshed.gradients.Accumulate(n))
    ]
    for path, whole in grads[0].items():
        np.testing.assert_allclose(grads[1][path], whole, rtol=1e-5, atol=1e-6)


def test_evaluation_pads_batches_for_a_declared_loss_and_stays_exact():
    x = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    data = {"x": x, "y": x.sum(1, keepdims=True)}
    trainer = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.1), declared())
    state = trainer.init(jax.random.key(0))
    whole = trainer.evaluate(state, [data])
    assert trainer.evaluate(state, toolshed.data.from_arrays(data, 4)) == pytest.approx(whole, rel=1e-6)
    preds = trainer.predict(state, pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    assert whole["loss"] == pytest.approx(float(np.mean((preds - data["y"]) ** 2)), rel=1e-6)


def test_its_repr_tells_what_it_compares():
    assert repr(declared(weight=0.5)) == "fit=Loss(squared_error, 'preds', 'batch/y', weight=0.5)"
