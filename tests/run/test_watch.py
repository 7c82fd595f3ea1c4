"""Watches: the statistics are those of the steps, and the steps are what they would be without them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.run.test_rates import new_run
from tests.training.by_hand import differing, values_of
from toolshed.errors import RunError
from toolshed.run import STATISTICS, LeafHistory
from toolshed.run.history import History

EVERYTHING = tuple(STATISTICS)


def by_hand(x: np.ndarray) -> dict[str, float]:
    x = x.astype(np.float64)
    return {
        "rms": float(np.sqrt(np.mean(x**2))),
        "norm": float(np.linalg.norm(x)),
        "mean": float(x.mean()),
        "std": float(x.std()),
        "absmax": float(np.abs(x).max()),
        "zeros": float((x == 0).mean()),
        "nonfinite": 0.0,
    }


@pytest.mark.parametrize("pattern", ["grads/**", "updates/**", "params/**/Linear.weights"])
def test_the_statistics_are_those_of_the_steps(pattern):
    run = new_run()
    watched = run.watch(pattern, every=3, statistics=EVERYTHING)
    run.train(8, wait=True)
    field, _, rest = pattern.partition("/")
    assert [path.partition("/")[0] for path in watched.paths] == [field] * len(watched.paths)
    assert len(watched.paths) == (2 if "Linear" in rest else 4)
    for name in EVERYTHING:
        steps, values = watched.values(name)
        assert steps.tolist() == [1, 4, 7]
        for step, row in zip(steps.tolist(), values, strict=True):
            context = run.explain(step)
            right = [by_hand(np.asarray(context[path]))[name] for path in watched.paths]
            np.testing.assert_allclose(row, right, rtol=1e-4, atol=1e-7)


def test_a_watched_run_makes_the_same_bits():
    run, other = new_run(), new_run()
    run.watch("grads/**", every=2)
    run.watch("params/**", every=5)
    for one in (run, other):
        one.train(40, wait=True)
        one.step()
        one.train(9, wait=True)
    assert differing(values_of(run.state), values_of(other.state)) == []
    losses, others = (one.history.series("train/loss").values for one in (run, other))
    assert losses.tolist() == others.tolist()
    assert list(run.watched) == ["grads/**", "params/**"]
    assert run.watched["params/**"].values()[0].tolist() == list(range(1, 51, 5))


def test_branches_have_lines_of_their_own():
    run = new_run()
    watched = run.watch("grads/**", every=2)
    run.train(8, wait=True)
    on_main = watched.values()
    run.goto(4)
    run.edit(learning_rate=0.05)
    run.train(4, wait=True)
    steps, values = watched.values()
    assert steps.tolist() == on_main[0].tolist() == [1, 3, 5, 7]
    assert (values[:3] == on_main[1][:3]).all()  # the third is of the state before its first update
    assert (values[3] != on_main[1][3]).any()
    assert (watched.values(branch="main")[1] == on_main[1]).all()


def test_a_watch_ends_and_what_it_saw_stays():
    run = new_run()
    watched = run.watch("grads/**", every=1)
    run.train(3, wait=True)
    run.unwatch("grads/**")
    run.train(3, wait=True)
    assert watched.values()[0].tolist() == [1, 2, 3]
    assert run.watched == {}
    assert repr(watched) == "grads/** every 1 steps: rms, absmax of 4 arrays; 3 rows, the last of step 3"
    with pytest.raises(RunError, match=r"^Nothing watches 'grads/\*\*'; watched are none\."):
        run.unwatch("grads/**")


def test_what_is_tapped_can_be_watched():
    def loss_fn(*, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        toolshed.tap("inputs", x)
        return loss, state, aux

    case = zoo.mlp()
    run = toolshed.Run(case.model, optax.sgd(0.01), loss_fn, [case.batch])
    watched = run.watch("interms/*", every=1, statistics=["absmax"])
    run.train(2, wait=True)
    assert watched.paths == ("interms/inputs",)
    assert watched.values()[1].ravel().tolist() == [float(jnp.abs(case.batch["x"]).max())] * 2


def test_a_model_that_changes_ends_the_watch_and_not_the_training():
    run = new_run()
    run.watch("grads/**", every=1)
    run.train(2, wait=True)
    run.edit_model(lambda model: model.sublayers[0])
    run.train(2, wait=True)
    assert int(run.state.step) == 4
    assert run.watched == {}
    assert "grads/** is watched no more: The arrays that match" in run.events[-1].text


def test_memory_is_bounded_and_rows_stay_evenly_spread():
    history = LeafHistory("grads/**", 2, ("rms",), ("grads/w",), History())
    for step in range(1, 10_001, 2):
        history.append("main", step, np.full((1, 1), step, np.float32))
    steps, values = history.values()
    assert 500 <= len(steps) <= 1000
    assert set(np.diff(steps)) == {16}
    assert steps[0] == 1
    assert (values[:, 0] == steps).all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("grad/**",), {}, r"^Cannot watch 'grad/\*\*'; expected paths into a Context"),
        ((3,), {}, r"^Cannot watch 3; expected"),
        (("grads/mpl/*",), {}, r"^No array of a step matches 'grads/mpl/\*'\. Did you mean 'grads/mlp"),
        (("grads/**",), {"every": 0}, r"^every is 0; expected a whole number from 1"),
        (("grads/**",), {"statistics": ["median"]}, r"^Cannot take \['median'\]; expected some of rms, norm"),
        (("grads/**",), {"statistics": "rms"}, r"^Cannot take 'rms'; expected some of"),
    ],
)
def test_a_wrong_call_is_an_error_that_says_what_was_expected(arguments, options, message):
    with pytest.raises(RunError, match=message):
        new_run().watch(*arguments, **options)


def test_a_statistic_that_was_not_taken_is_an_error():
    watched = new_run().watch("params/**")
    with pytest.raises(RunError, match=r"^This watch has no 'mean'; it has rms, absmax\."):
        watched.values("mean")
    assert watched.values()[1].shape == (0, 4)
    assert repr(watched).endswith("of 4 arrays; nothing seen yet")
