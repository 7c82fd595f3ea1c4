"""The trainer: state in, state out, and nothing lost whatever ends it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training import by_hand
from tests.training.by_hand import batches, count_compilations, differing, values_of
from toolshed import EarlyStop, Trainer
from toolshed.data import from_arrays
from toolshed.errors import DataError, ExhaustedWarning, ModelError, NonFiniteError

EXAMPLES = 24


def arrays(n: int = EXAMPLES) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1, keepdims=True)}


def stream(**options: Any) -> toolshed.data.ArrayStream:
    return from_arrays(arrays(), 8, seed=3, **options)


def trainer_of(model: str = "mlp", **options: Any) -> Trainer:
    case = zoo.ZOO[model]()
    return Trainer(case.model, optax.adam(1e-2), options.pop("loss_fn", case.loss_fn), **options)


@functools.cache
def shared(model: str = "mlp") -> Trainer:
    """A trainer whose compiled programs several tests use; it holds no state of training."""
    return trainer_of(model)


def start(trainer: Trainer) -> toolshed.TrainState:
    return trainer.init(jax.random.key(1))


# --- init -------------------------------------------------------------------------------------------


def test_init_takes_a_model_as_it_is():
    case, trainer = zoo.mlp(), shared()
    state = start(trainer)
    _, parameters = pz.unbind_params(case.model, freeze=True)
    expected = {parameter.label: jax.tree.leaves(parameter.value)[0] for parameter in parameters}
    assert differing(state.params, expected) == []
    assert int(state.step) == 0
    assert differing(trainer.init(jax.random.key(2)).params, expected) == []


def builder(keys: list[Any]) -> Any:
    def build(key: jax.Array) -> Any:
        keys.append(key)
        return MLP.from_config(init_base_rng=key, feature_sizes=[4, 8, 1])

    return build


def test_init_builds_a_model_with_a_key_of_its_own():
    keys: list[Any] = []
    trainer = Trainer(builder(keys), optax.adam(1e-2), zoo.regression_loss)
    first, again, other = (trainer.init(jax.random.key(seed)) for seed in (1, 1, 2))
    assert differing(first.params, again.params) == []
    assert "mlp/Affine_0/Linear.weights" in differing(first.params, other.params)
    expected = MLP.from_config(init_base_rng=keys[0], feature_sizes=[4, 8, 1])
    assert differing(first.params, toolshed.models.split(expected).params) == []


def test_the_key_given_to_init_is_used_for_nothing_but_to_fold_keys_from():
    keys: list[Any] = []
    trainer, given = Trainer(builder(keys), optax.adam(1e-2), zoo.regression_loss), jax.random.key(1)
    state = trainer.init(given)
    root = state.root_rng
    of_steps = [jax.random.fold_in(root, number) for number in range(200)]
    all_keys = [given, root, *keys, *of_steps, state.next_rng()[0], state.next_rng()[1].root_rng]
    assert len({np.asarray(jax.random.key_data(key)).tobytes() for key in all_keys}) == len(all_keys) == 205


def test_make_state_takes_a_pretrained_model():
    pretrained = MLP.from_config(init_base_rng=jax.random.key(42), feature_sizes=[4, 8, 1])
    trainer = shared()
    state, again = trainer.make_state(pretrained), trainer.make_state(pretrained)
    assert differing(state.params, toolshed.models.split(pretrained).params) == []
    assert differing(state.root_rng, again.root_rng) == []
    other = trainer.make_state(pretrained, rng=jax.random.key(5))
    assert differing(other.root_rng, jax.random.key(5)) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, r"^Expected a model or a function that builds one, got int 3\.$"),
        (lambda key: "no model", r"^Expected a model of one of the libraries penzai, .*; got str"),
    ],
)
def test_what_is_no_model_is_named(model, message):
    with pytest.raises(ModelError, match=message):
        Trainer(model, optax.adam(1e-2), zoo.regression_loss).init(jax.random.key(0))


# --- step -------------------------------------------------------------------------------------------


def test_a_step_by_hand_fills_the_context_and_leaves_the_state_valid():
    trainer, case = shared(), zoo.mlp()
    state = start(trainer)
    before = values_of(state)
    after, context = trainer.step(state, case.batch)
    again, _ = trainer.step(state, case.batch)
    assert set(context.filled) >= {"params", "opt_state", "rng", "loss_total", "grads", "updates", "preds"}
    assert differing(values_of(state), before) == []
    assert differing(values_of(after), values_of(again)) == []


# --- fit: one training, however it is cut -----------------------------------------------------------


def test_fit_is_the_loop_written_by_hand():
    case, data = zoo.dropout_mlp(), batches(zoo.dropout_mlp(), 30)
    trainer = shared("dropout_mlp")
    state = start(trainer)
    expected = by_hand.train(case, optax.adam(1e-2), state.root_rng, data)
    assert differing(trainer.fit(state, data).params, expected.params) == []


def test_fifty_steps_and_fifty_more_are_a_hundred_bit_for_bit():
    trainer = shared("dropout_mlp")
    whole, halves = stream(), stream()
    expected = trainer.fit(start(trainer), whole, steps=100)
    middle = trainer.fit(start(trainer), halves, steps=50)  # 16 epochs of 3 batches, and 2 batches more
    assert (halves.position, halves.epoch) == (50, 16)
    state = trainer.fit(middle, halves, steps=50)
    assert differing(values_of(state), values_of(expected)) == []
    assert halves.position == whole.position == int(state.step) == 100
    from_the_first_batch = trainer.fit(middle, stream(), steps=50)
    assert differing(from_the_first_batch.params, expected.params) == sorted(expected.params)


def test_fit_sees_each_example_once_an_epoch_in_an_order_that_changes():
    seen: list[list[float]] = []

    class Watched(toolshed.data.ArrayStream):
        def batch_at(self, position: int) -> Any:
            batch = super().batch_at(position)
            seen.append(batch["x"][:, 0].tolist())
            return batch

    data = Watched(arrays(), 8, seed=3, shuffle=True, last="keep")
    shared().fit(start(shared()), data, steps=9)
    epochs = [[*seen[at], *seen[at + 1], *seen[at + 2]] for at in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(arrays()["x"][:, 0].tolist())
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_fit_with_a_report_is_fit_without_bit_for_bit():
    trainer = shared("dropout_mlp")
    silent = trainer.fit(start(trainer), stream(), steps=40)
    reported = trainer.fit(start(trainer), stream(), steps=40, report=lambda step, loss, state: None)
    assert differing(values_of(silent), values_of(reported)) == []


def test_without_a_number_of_steps_fit_makes_one_pass():
    trainer, data = shared(), stream()
    state = trainer.fit(start(trainer), data)
    assert (int(state.step), data.position) == (3, 3)
    state = trainer.fit(state, data)  # the second pass is no silent no-op
    assert (int(state.step), data.position) == (6, 6)
    assert int(trainer.fit(state, [zoo.mlp().batch] * 4).step) == 10


def test_no_steps_give_the_same_state_and_touch_no_data():
    trainer, data = shared(), iter([zoo.mlp().batch])
    state = start(trainer)
    assert trainer.fit(state, data, steps=0) is state
    assert trainer.fit(state, [], steps=0) is state
    assert len(list(data)) == 1


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_the_caller_s_state_and_model_survive(report):
    case = zoo.running_statistics()
    trainer = Trainer(case.model, optax.adam(1e-2), case.loss_fn)
    state = start(trainer)
    before, in_model = values_of(state), by_hand.on_host(case.model)
    after = trainer.fit(state, stream(), steps=5, report=report)
    assert differing(values_of(state), before) == []
    assert differing(case.model, in_model) == []
    assert differing(values_of(after), before) != []
    assert differing(values_of(trainer.fit(state, stream(), steps=5)), values_of(after)) == []
    case.loss_fn(model=state.model, state=None, rng=None, **case.batch)  # bound and called: still alive


def test_fit_compiles_nothing_in_later_calls():
    trainer, data = trainer_of(), stream()
    state = trainer.fit(start(trainer), data, steps=3)
    with count_compilations() as compiled:
        state = trainer.fit(state, data, steps=5)
        state = trainer.fit(start(trainer), data, steps=5)
    assert compiled == []


@pytest.mark.parametrize("steps", [7, 13, 24])
def test_seven_steps_in_a_call_with_a_remainder_equal_plain_ones(steps):
    plain = shared("dropout_mlp")
    data = stream(), stream()
    expected = plain.fit(start(plain), data[0], steps=steps)
    state = sevens().fit(start(sevens()), data[1], steps=steps)
    assert differing(values_of(state), values_of(expected)) == []
    assert data[0].position == data[1].position == steps


@functools.cache
def sevens() -> Trainer:
    return trainer_of("dropout_mlp", steps_per_call=7)


@pytest.mark.filterwarnings("ignore::toolshed.errors.RetraceWarning")
def test_seven_steps_in_a_call_take_a_short_last_batch_too():
    data = from_arrays(arrays(20), 8), from_arrays(arrays(20), 8)  # 8, 8 and 4 examples
    expected = shared("dropout_mlp").fit(start(sevens()), data[0], steps=9)
    state = sevens().fit(start(sevens()), data[1], steps=9)
    assert differing(values_of(state), values_of(expected)) == []


def test_fit_works_in_another_thread():
    trainer, done = shared(), []
    expected = trainer.fit(start(trainer), stream(), steps=5)
    thread = threading.Thread(target=lambda: done.append(trainer.fit(start(trainer), stream(), steps=5)))
    thread.start()
    thread.join()
    assert differing(values_of(done[0]), values_of(expected)) == []


# --- report -----------------------------------------------------------------------------------------


def test_a_report_gets_step_loss_and_state_which_may_be_kept():
    trainer, data = shared(), stream()
    calls: list[Any] = []
    middle = trainer.fit(start(trainer), data, steps=4, report=lambda *call: calls.append(call))
    trainer.fit(middle, data, steps=3, report=lambda *call: calls.append(call))
    assert [step for step, _, _ in calls] == [1, 2, 3, 4, 5, 6, 7]
    assert [int(state.step) for _, _, state in calls] == [1, 2, 3, 4, 5, 6, 7]
    state, fresh = start(trainer), stream()
    for position, (_, loss, kept) in enumerate(calls):
        state, context = trainer.step(state, fresh.batch_at(position))
        assert isinstance(loss, jax.Array)
        np.testing.assert_allclose(loss, context.loss_total, rtol=1e-6)
        assert differing(values_of(kept), values_of(state)) == []  # long after: none was donated


@pytest.mark.parametrize("at", [1, 7])
def test_early_stop_gives_the_state_including_the_step_just_done(at):
    trainer = shared()

    def stop(step: int, loss: jax.Array, state: toolshed.TrainState) -> None:
        if step == at:
            raise EarlyStop

    state = trainer.fit(start(trainer), stream(), steps=20, report=stop)
    assert int(state.step) == at
    assert state is trainer.last_state
    expected = trainer.fit(start(trainer), stream(), steps=at)
    assert differing(values_of(state), values_of(expected)) == []


def test_an_error_in_a_report_is_the_caller_s_own_and_loses_no_step():
    trainer = shared()

    def fail(step: int, loss: jax.Array, state: toolshed.TrainState) -> None:
        if step == 3:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        trainer.fit(start(trainer), stream(), steps=20, report=fail)
    assert int(trainer.last_state.step) == 3
    assert caught.value.__notes__ == ["Training stopped after step 3; its state is trainer.last_state."]


# --- data that is not there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [list, lambda: iter([]), lambda: (batch for batch in [])],
    ids=["list", "iterator", "generator"],
)
@pytest.mark.parametrize("steps", [None, 5])
def test_data_without_a_batch_is_an_error(data, steps):
    trainer = shared()
    state = start(trainer)
    with pytest.raises(DataError, match=r"^The data gave no batch\. If it is a generator, it is used up"):
        trainer.fit(state, data(), steps=steps)
    assert differing(values_of(trainer.last_state), values_of(state)) == []


def test_a_generator_that_is_used_up_is_an_error_and_no_silent_no_op():
    trainer, data = shared(), (batch for batch in [zoo.mlp().batch] * 2)
    state = trainer.fit(start(trainer), data)
    assert int(state.step) == 2
    with pytest.raises(DataError, match="used up"):
        trainer.fit(state, data)


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_a_generator_that_ends_early_warns_and_gives_the_state(report):
    trainer, data = shared(), (batch for batch in [zoo.mlp().batch] * 3)
    with pytest.warns(ExhaustedWarning, match=r"^The data ended after 3 of 10 steps and cannot be iterated"):
        state = trainer.fit(start(trainer), data, steps=10, report=report)
    assert int(state.step) == 3
    assert trainer.last_state is state


def failing(n: int) -> Iterator[Any]:
    yield from batches(zoo.mlp(), n)
    raise OSError("the disk is gone")


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_an_error_in_the_data_loses_no_step(report):
    trainer = shared()
    assert Trainer(zoo.mlp().model, optax.adam(1e-2), zoo.regression_loss).last_state is None
    with pytest.raises(OSError, match="the disk is gone") as caught:
        trainer.fit(start(trainer), failing(4), steps=10, report=report)
    assert caught.value.__notes__ == ["Training stopped after step 4; its state is trainer.last_state."]
    expected = trainer.fit(start(trainer), batches(zoo.mlp(), 4))
    with pytest.raises(OSError, match="gone"):
        trainer.fit(start(trainer), failing(4), report=report)
    assert differing(values_of(trainer.last_state), values_of(expected)) == []
    resumed = trainer.fit(trainer.last_state, stream(), steps=2)
    assert int(resumed.step) == 6


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_a_wrong_batch_midway_loses_no_step(report):
    trainer, good = shared(), zoo.mlp().batch
    with pytest.raises(toolshed.errors.BatchError, match="lost y") as caught:
        trainer.fit(start(trainer), [good, good, {"x": good["x"]}, good], report=report)
    assert int(trainer.last_state.step) == 2
    assert any(note.startswith("Training stopped after step 2;") for note in caught.value.__notes__)
    assert int(trainer.fit(trainer.last_state, [good]).step) == 3


# --- losses that are not finite ---------------------------------------------------------------------


def with_a_bad_loss(at: int, value: float) -> list[dict[str, np.ndarray]]:
    data = batches(zoo.mlp(), 8)
    data[at]["y"] = np.full_like(data[at]["y"], value)
    return data


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (1e30, "inf")])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(report, value, word):
    trainer = shared()
    with pytest.raises(
        NonFiniteError, match=rf"^The loss of step 5 is {word}\. Lower the learning"
    ) as caught:
        trainer.fit(start(trainer), with_a_bad_loss(5, value), report=report)
    assert caught.value.step == 5
    assert caught.value.state is trainer.last_state
    assert int(trainer.last_state.step) >= 6
    assert isinstance(caught.value, FloatingPointError)


def test_a_loss_that_is_not_finite_stops_a_call_of_several_steps_too():
    trainer = trainer_of(steps_per_call=3)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(start(trainer), with_a_bad_loss(4, np.nan))
    assert caught.value.step == 4


def test_the_steps_are_named_as_the_state_counts_them():
    trainer = shared()
    state = trainer.fit(start(trainer), stream(), steps=10)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(state, with_a_bad_loss(2, np.nan))
    assert caught.value.step == 12


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_without_check_finite_training_goes_on(report):
    trainer = trainer_of(check_finite=False)
    state = trainer.fit(start(trainer), with_a_bad_loss(5, np.nan), report=report)
    assert int(state.step) == 8
    assert np.isnan(state.params["mlp/Affine_1/AddBias.bias"]).all()


# --- predict ----------------------------------------------------------------------------------------


def named(x: Any) -> pz.nx.NamedArray:
    return pz.nx.wrap(jnp.asarray(x)).tag("batch", "features")


def test_predict_is_the_model_without_dropout():
    trainer = shared("dropout_mlp")
    state = start(trainer)
    before = values_of(state)
    x = named(arrays()["x"])
    predicted = trainer.predict(state, x)
    assert differing(trainer.predict(state, x), predicted) == []
    assert differing(trainer.predict(state.replace(root_rng=jax.random.key(99)), x), predicted) == []
    streams = [pz.RandomStream.from_base_key(jax.random.key(seed)) for seed in (0, 1)]
    in_training = [state.model(x, random_stream=stream) for stream in streams]
    assert differing(*in_training) != []
    plain = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 1])
    same_weights = {path.replace("dropout_", ""): value for path, value in state.params.items()}
    expected = toolshed.models.bind(toolshed.models.split(plain).skeleton, same_weights, {})(x)
    np.testing.assert_allclose(
        predicted.unwrap("batch", "features"), expected.unwrap("batch", "features"), rtol=1e-6
    )
    assert differing(values_of(state), before) == []


def test_predict_changes_no_model_state_and_uses_the_state_it_is_given():
    trainer = shared("running_statistics")
    state = start(trainer)
    before = values_of(state)
    first = trainer.predict(state, named(arrays()["x"]))
    assert differing(trainer.predict(state, named(arrays()["x"])), first) == []
    assert differing(values_of(state), before) == []
    trained = trainer.fit(state, stream(), steps=20)
    assert differing(trainer.predict(trained, named(arrays()["x"])), first) != []


def test_predict_compiles_once_for_all_states_of_a_model():
    trainer = trainer_of()
    state, x = start(trainer), named(arrays()["x"])
    trainer.predict(state, x)
    trained = trainer.fit(state, stream(), steps=2)
    with count_compilations() as compiled:
        trainer.predict(trained, x)
    assert compiled == []


# --- evaluate ---------------------------------------------------------------------------------------


def masked_loss(*, model: Any, state: Any, rng: Any, x: Any, y: Any, mask: Any = None) -> Any:
    preds = model(named(x)).untag("batch", "features").unwrap()
    errors = ((preds - y) ** 2)[:, 0]
    mask = jnp.ones(len(errors), bool) if mask is None else mask
    return jnp.where(mask, errors, 0).sum() / mask.sum(), state, {"preds": preds, "errors": errors}


@functools.cache
def evaluator(mask: str | None) -> Trainer:
    metrics = toolshed.metrics.collection(error=toolshed.metrics.Mean("aux/errors", mask=mask))
    return Trainer(zoo.mlp().model, optax.adam(1e-2), masked_loss, metrics=metrics)


@pytest.mark.parametrize(("last", "mask"), [("keep", None), ("mask", "batch/mask")])
@pytest.mark.parametrize("n", [8, 10, 13, 3])
def test_evaluate_is_the_mean_over_the_whole_set_however_the_last_batch_comes_out(last, mask, n):
    trainer = evaluator(mask)
    state, data = start(trainer), from_arrays(arrays(n), 4, last=last)
    predictions = np.asarray(state.model(named(arrays(n)["x"])).untag("batch", "features").unwrap())
    errors = (predictions - arrays(n)["y"])[:, 0] ** 2
    scores = trainer.evaluate(state, data)
    assert scores == pytest.approx({"loss": errors.mean(), "error": errors.mean()}, rel=1e-5)
    if n % 4:
        mean_of_batches = np.mean([errors[at : at + 4].mean() for at in range(0, n, 4)])
        assert scores["loss"] != pytest.approx(mean_of_batches, rel=1e-3) or n < 4


@pytest.mark.parametrize("last", ["keep", "drop", "mask"])
def test_evaluate_takes_every_example_of_a_stream_and_moves_it_nowhere(last):
    trainer = evaluator("batch/mask" if last == "mask" else None)
    state, data = start(trainer), from_arrays(arrays(10), 4, last=last)
    next(iter(data))
    before = data.state()
    scores = trainer.evaluate(state, data)
    assert data.state() == before
    everything = trainer.evaluate(
        state, [{**arrays(10), **({"mask": np.ones(10, bool)} if last == "mask" else {})}]
    )
    assert scores == pytest.approx(everything, rel=1e-5)


def test_evaluate_changes_nothing_in_the_state():
    trainer = shared("running_statistics")
    state = trainer.fit(start(trainer), stream(), steps=2)
    before = values_of(state)
    first = trainer.evaluate(state, stream())
    assert trainer.evaluate(state, stream()) == first
    assert differing(values_of(state), before) == []


def test_evaluate_does_not_touch_the_metrics_gathered_in_training():
    trainer = evaluator(None)
    state = trainer.fit(start(trainer), stream(), steps=4)
    gathered = state.compute_metrics()
    assert trainer.evaluate(state, from_arrays(arrays(10), 4))["error"] != gathered["error"]
    assert state.compute_metrics() == gathered


def test_training_after_an_evaluation_is_training_without_it():
    trainer = shared("dropout_mlp")
    plain = trainer.fit(start(trainer), stream(), steps=6)
    data = stream()
    state = trainer.fit(start(trainer), data, steps=3)
    trainer.evaluate(state, data)
    assert differing(values_of(trainer.fit(state, data, steps=3)), values_of(plain)) == []


def test_evaluate_is_without_dropout_and_training_is_not():
    trainer, x = shared("dropout_mlp"), arrays()
    state = start(trainer)
    other_key = state.replace(root_rng=jax.random.key(99))
    assert trainer.evaluate(state, [x]) == trainer.evaluate(other_key, [x])
    losses = [float(trainer.step(s, x)[1].loss_total) for s in (state, other_key)]
    assert losses[0] != losses[1]


def test_evaluate_draws_no_key_that_training_uses():
    def loss_that_is_its_key(*, model, state, rng, x):
        bits = jax.random.key_data(rng)[1] & 0xFFFFFF  # 24 bits, which a float32 holds exactly
        return jnp.mean(model(named(x)).unwrap("batch", "features")) * 0 + bits, state, {}

    trainer = Trainer(zoo.mlp().model, optax.adam(1e-2), loss_that_is_its_key)
    state, data = start(trainer), [{"x": arrays(1)["x"]}]
    drawn = trainer.evaluate(state, data)["loss"]

    def bits(key: jax.Array) -> int:
        return int(jax.random.key_data(key)[1] & 0xFFFFFF)

    of_steps = [bits(jax.random.fold_in(state.root_rng, number)) for number in range(300)]
    assert float(trainer.step(state, data[0])[1].loss_total) == of_steps[0]  # training does draw these
    assert drawn not in of_steps
    assert drawn != bits(state.root_rng)
    two = trainer.evaluate(state, data * 2)["loss"] * 2 - drawn
    assert two != drawn  # each batch has a key of its own


def test_evaluate_reports_each_metric_by_its_name():
    metrics = toolshed.metrics.collection(
        accuracy=toolshed.metrics.Accuracy(), mean=toolshed.metrics.Mean("loss_total")
    )

    def classification_loss(*, model, state, rng, x, label):
        logits = model(named(x)).untag("batch", "features").unwrap()
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return losses.mean(), state, {"preds": logits}

    model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 3])
    trainer = Trainer(model, optax.adam(5e-2), classification_loss, metrics=metrics)
    x = arrays()["x"]
    data = from_arrays({"x": x, "label": x[:, :3].argmax(axis=1).astype(np.int32)}, 8)
    state = start(trainer)
    guesses = np.asarray(trainer.predict(state, named(x)).untag("batch", "features").unwrap()).argmax(axis=1)
    scores = trainer.evaluate(state, data)
    assert list(scores) == ["loss", "accuracy", "mean"]
    assert scores["accuracy"] == pytest.approx(np.mean(guesses == x[:, :3].argmax(axis=1)))
    assert scores["mean"] == pytest.approx(scores["loss"], rel=1e-6)  # all batches are full
    trained = trainer.fit(state, data, steps=120)
    assert trainer.evaluate(trained, data)["accuracy"] > 0.9 > scores["accuracy"]


@pytest.mark.parametrize("path", ["loss_states/loss", "interms/error", "summary_states/error"])
def test_a_metric_of_training_is_a_metric_of_evaluation(path):
    def loss_with_more(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, {**aux, "interms": {"error": loss}, "summary_states": {"error": loss}}

    metrics = toolshed.metrics.collection(value=toolshed.metrics.Mean(path))
    trainer = trainer_of(loss_fn=loss_with_more, metrics=metrics)
    state = start(trainer)
    scores = trainer.evaluate(state, [zoo.mlp().batch])
    after, _ = trainer.step(state, zoo.mlp().batch)
    assert scores["value"] == pytest.approx(after.compute_metrics()["value"], rel=1e-6)


def test_padding_alone_has_no_mean_and_weighs_nothing():
    trainer = evaluator("batch/mask")
    state, whole = start(trainer), {**arrays(4), "mask": np.ones(4, bool)}
    padding = {**arrays(4), "mask": np.zeros(4, bool)}
    assert np.isnan(list(trainer.evaluate(state, [padding]).values())).all()
    assert trainer.evaluate(state, [whole, padding]) == trainer.evaluate(state, [whole])


@pytest.mark.parametrize("data", [[], iter([])], ids=["list", "iterator"])
def test_evaluate_on_no_data_is_an_error(data):
    with pytest.raises(DataError, match="The data gave no batch"):
        shared().evaluate(start(shared()), data)


def test_evaluate_compiles_once_for_all_states_of_a_model():
    trainer, data = trainer_of(), stream()
    state = start(trainer)
    trainer.evaluate(state, data)
    trained = trainer.fit(state, data, steps=2)
    with count_compilations() as compiled:
        trainer.evaluate(trained, data)
    assert compiled == []


def test_a_model_that_holds_its_random_stream_trains_and_predicts():
    trainer = shared("random_stream")
    state = trainer.fit(start(trainer), stream(), steps=5)
    x = named(arrays()["x"])
    assert differing(trainer.predict(state, x), trainer.predict(state, x)) == []
    moved = state.model_state
    assert differing(moved, start(trainer).model_state) != []  # training draws on; predicting does not
    assert differing(state.model_state, moved) == []


def test_an_error_on_the_device_comes_through_and_leaves_a_state_that_can_be_used():
    calls = []

    def fail_at_the_sixth(loss: Any) -> Any:
        calls.append(loss)
        if len(calls) == 6:
            raise OSError("the device has failed")
        return loss

    def fragile_loss(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return loss + 0 * jax.pure_callback(fail_at_the_sixth, shape, jax.lax.stop_gradient(loss)), state, aux

    trainer = trainer_of(loss_fn=fragile_loss)
    state = start(trainer)
    with pytest.raises(Exception, match="the device has failed"):
        trainer.fit(state, [zoo.mlp().batch], steps=20)
    assert int(trainer.last_state.step) <= 5
    assert np.isfinite(trainer.last_state.params["mlp/Affine_0/AddBias.bias"]).all()
