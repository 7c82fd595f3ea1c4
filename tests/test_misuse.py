"""Every wrong way to call toolshed that we know of gives one clear error and breaks nothing.

The table is the test: a name, the wrong call, the type of the error, and what its text must say. After
each of them a state from before still trains to the same bits as ever.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.deprecated.v1 import pz as v1
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import differing, new_state, values_of
from toolshed import Trainer, TrainState, build_train_step
from toolshed.data import feed, from_arrays
from toolshed.errors import (
    BatchError,
    ContextKeyError,
    DataError,
    FieldNotFilled,
    LossError,
    ModelError,
    SnapshotError,
    StateError,
    ToolshedError,
)

ADAM = optax.adam(1e-2)
KEY = jax.random.key(1)
CASE = zoo.mlp()
X, Y, BATCH = CASE.batch["x"], CASE.batch["y"], CASE.batch
INPUT = pz.nx.wrap(X).tag("batch", "features")
BIAS = "mlp/Affine_0/AddBias.bias"


@pytest.fixture(autouse=True)
def without_type_checks() -> Iterator[None]:
    """As people run it: with no type checker between them and the errors that toolshed raises."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@functools.cache
def good_step() -> toolshed.TrainStep:
    return build_train_step(zoo.regression_loss, fields=())


@functools.cache
def state() -> TrainState:
    """One state for the whole table, two steps old: each wrong call is made with it."""
    made = new_state(zoo.mlp(), ADAM)
    for _ in range(2):
        made, _ = good_step()(made, BATCH)
    return made


@functools.cache
def expected() -> dict[str, np.ndarray]:
    return values_of(good_step()(state(), BATCH)[0])


@functools.cache
def trainer() -> Trainer:
    return Trainer(zoo.mlp().model, ADAM, zoo.regression_loss)


@functools.cache
def donating_step() -> toolshed.TrainStep:
    return build_train_step(zoo.regression_loss, fields=(), donate=True)


def donated() -> TrainState:
    old = jax.tree.map(jnp.copy, state())
    donating_step()(old, BATCH)
    return old


# --- wrong loss functions and models ----------------------------------------------------------------


def returning(change: Callable[..., Any]) -> Callable[..., Any]:
    """The good loss function with its result changed."""

    def my_loss(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
        loss, _, aux = zoo.regression_loss(model=model, state=None, rng=rng, x=x, y=y)
        return change(loss, state, aux)

    return my_loss


def step_with(change: Callable[..., Any], **parts: Any) -> Any:
    return build_train_step(returning(change))(state().replace(**parts), BATCH)


def without_y(*, model: Any, state: Any, rng: Any, x: Any) -> Any:
    return zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=x[:, :1])


def initial(model: Any = None, optimizer: Any = ADAM, key: Any = KEY, **parts: Any) -> TrainState:
    return TrainState.initial_state(zoo.mlp().model if model is None else model, optimizer, key, **parts)


def scale_by(value: Any, label: Any = "factor") -> zoo.Scale:
    return zoo.Scale(pz.Parameter(value=value, label=label))


def mlp(**options: Any) -> Any:
    return MLP.from_config(**{"init_base_rng": jax.random.key(0), "feature_sizes": [4, 8, 1], **options})


def grads(**changes: Any) -> dict[str, Any]:
    """Right gradients but for the changes; None leaves one out."""
    right = {path: jnp.zeros(value.shape) for path, value in state().params.items()}
    return {path: grad for path, grad in {**right, **changes}.items() if grad is not None}


def snapshot(**changes: Any) -> dict[str, Any]:
    whole = {**state().to_snapshot(), **changes}
    return {name: section for name, section in whole.items() if section is not None}


def load(snapshot: Any) -> TrainState:
    return TrainState.from_snapshot(snapshot, like=new_state(zoo.mlp(), ADAM))


def context(**options: Any) -> toolshed.Context:
    return build_train_step(zoo.regression_loss, **options)(state(), BATCH)[1]


def record(path: str) -> Any:
    step = build_train_step(zoo.regression_loss, fields=(), record=(path,))
    return step(state(), BATCH, step.tape())


def stream(n: int = 8, **options: Any) -> toolshed.data.ArrayStream:
    return from_arrays({"x": np.zeros((n, 4), np.float32)}, **{"batch_size": 4, **options})


class Misuse(NamedTuple):
    """A wrong call, and the error that it must give."""

    name: str
    call: Callable[[], Any]
    error: type[Exception]
    message: str


TABLE = [
    # the loss function
    Misuse(
        "a loss that is not a scalar",
        lambda: step_with(lambda loss, state, aux: (jnp.stack([loss, loss]), state, aux)),
        LossError,
        r"^my_loss returned a loss of float32\[2\]; only a scalar can be differentiated\. Reduce it",
    ),
    Misuse(
        "a loss with named axes",
        lambda: step_with(lambda loss, state, aux: (pz.nx.wrap(loss[None]).tag("batch"), state, aux)),
        LossError,
        r"^my_loss returned a loss of float32\[batch:1\]; only a scalar can be differentiated\.",
    ),
    Misuse(
        "a loss that is a whole number",
        lambda: step_with(lambda loss, state, aux: (jnp.int32(3), state, aux)),
        LossError,
        r"^my_loss returned a loss of int32\[\]; expected a real floating-point scalar\.$",
    ),
    Misuse(
        "a complex loss",
        lambda: step_with(lambda loss, state, aux: (loss + 0j, state, aux)),
        LossError,
        r"^my_loss returned a loss of complex64\[\]; expected a real floating-point scalar\.$",
    ),
    Misuse(
        "no loss",
        lambda: step_with(lambda loss, state, aux: (None, state, aux)),
        LossError,
        r"^my_loss returned a loss of NoneType",
    ),
    Misuse(
        "a loss function that returns two values",
        lambda: step_with(lambda loss, state, aux: (loss, aux)),
        LossError,
        r"^my_loss returned a tuple of 2; expected \(loss, new_state, aux\), a tuple of three\.$",
    ),
    Misuse(
        "a loss function that returns the loss alone",
        lambda: step_with(lambda loss, state, aux: loss),
        LossError,
        r"^my_loss returned float32\[\]; expected \(loss, new_state, aux\), a tuple of three\.$",
    ),
    Misuse(
        "a loss function that forgot to return",
        lambda: step_with(lambda loss, state, aux: None),
        LossError,
        r"^my_loss returned NoneType; expected \(loss, new_state, aux\)",
    ),
    Misuse(
        "a loss function whose state changes its structure",
        lambda: step_with(lambda loss, state, aux: (loss, {"seen": loss}, aux)),
        LossError,
        r"^my_loss returned a new state of another structure: it got .*Return `state` itself",
    ),
    Misuse(
        "a loss function whose state changes its shape",
        lambda: step_with(lambda loss, state, aux: (loss, jnp.ones(3), aux), loss_fn_state=jnp.ones(2)),
        LossError,
        r"^my_loss returned a new state.*float32\[3\]",
    ),
    Misuse(
        "a loss function that misses a name of the batch",
        lambda: build_train_step(without_y)(state(), BATCH),
        BatchError,
        r"^without_y cannot be called with this batch: got an unexpected keyword argument 'y'\. It takes .*x",
    ),
    Misuse(
        "no loss function",
        lambda: build_train_step(None),
        ValueError,
        r"^Expected a loss function, got NoneType\.$",
    ),
    # the batch
    Misuse(
        "a batch that is a tuple",
        lambda: good_step()(state(), (X, Y)),
        BatchError,
        r"^Expected a batch as a dict by name.*; got tuple\. Wrap it: \{'x': x, 'y': y\}\.$",
    ),
    Misuse(
        "a batch that is an array",
        lambda: good_step()(state(), X),
        BatchError,
        r"^Expected a batch as a dict by name.*; got float32\[8,4\]\. Wrap it",
    ),
    Misuse(
        "no batch",
        lambda: good_step()(state(), None),
        BatchError,
        r"^Expected a batch as a dict by name.*; got NoneType\.",
    ),
    Misuse(
        "a batch that is a string",
        lambda: good_step()(state(), "x"),
        BatchError,
        r"^Expected a batch as a dict by name.*; got str\.",
    ),
    Misuse(
        "a batch by number",
        lambda: good_step()(state(), {0: X, 1: Y}),
        BatchError,
        r"^Expected a batch as a dict by name",
    ),
    Misuse(
        "a batch with strings",
        lambda: good_step()(state(), {"x": X, "y": np.array(["cat"] * 8)}),
        BatchError,
        r"^batch/y is <U3\[8\]; expected numbers in an array\. Leave it out of the batch, or encode it",
    ),
    Misuse(
        "a batch with one string",
        lambda: good_step()(state(), {**BATCH, "name": "first"}),
        BatchError,
        r"^batch/name is str; expected numbers in an array\.",
    ),
    Misuse(
        "a batch with objects",
        lambda: good_step()(state(), {"x": X, "y": np.array([None] * 8)}),
        BatchError,
        r"^batch/y is object\[8\]; expected numbers in an array\.",
    ),
    Misuse(
        "a batch with a reserved name",
        lambda: build_train_step(zoo.regression_loss)(state(), {**BATCH, "rng": X}),
        BatchError,
        r"^The batch has an entry 'rng', a name that the step itself fills\. Rename it\.$",
    ),
    Misuse(
        "a first batch that lacks an entry",
        lambda: build_train_step(zoo.regression_loss)(state(), {"x": X}),
        BatchError,
        r"^regression_loss cannot be called with this batch: missing a required argument: 'y'\..*has x,",
    ),
    Misuse(
        "a batch that lost an entry",
        lambda: good_step()(state(), {"x": X}),
        BatchError,
        r"^The batch changed its structure: it lost y\. The first one had x float32\[8,4\], y float32",
    ),
    Misuse(
        "a batch that gained an entry",
        lambda: good_step()(state(), {**BATCH, "z": X}),
        BatchError,
        r"^The batch changed its structure: it gained z\. The first one had",
    ),
    Misuse(
        "a batch without the axis of the steps",
        lambda: build_train_step(zoo.regression_loss, steps_per_call=3)(state(), BATCH),
        BatchError,
        r"^batch/x is float32\[8,4\]; with steps_per_call=3 each entry needs a first axis of 3, one batch",
    ),
    # the model
    Misuse(
        "a parameter of whole numbers",
        lambda: initial(scale_by(jnp.arange(4))),
        ModelError,
        r"^The parameter 'factor' is int32\[4\]; a gradient exists for floating point.*'trainable': False",
    ),
    Misuse(
        "a model without parameters",
        lambda: initial(pz.nn.Elementwise(jnp.tanh)),
        ModelError,
        r"^Elementwise has no trainable parameter, so there is nothing to train\.",
    ),
    Misuse(
        "something that is no model",
        lambda: initial({"weights": jnp.ones(3)}),
        ModelError,
        r"^Expected a model of one of the libraries penzai, penzai v1; got dict, which holds none",
    ),
    Misuse(
        "two parameters of one label",
        lambda: initial(pz.nn.Sequential([scale_by(jnp.ones(4)), scale_by(jnp.ones(4))])),
        ModelError,
        r"^Two different Parameters have the label 'factor': at .* and at .*\. Rename one, or put the same",
    ),
    Misuse(
        "a model that was not initialised",
        lambda: initial(mlp(init_base_rng=None)),
        ModelError,
        r"^The model has an empty slot for 'mlp/Affine_0/Linear\.weights' at .*: it was built without",
    ),
    Misuse(
        "a skeleton in the place of a model",
        lambda: initial(state().model_without_params),
        ModelError,
        r"^The model has an empty slot for .*or is a skeleton\. Pass a model whose parameters have values\.$",
    ),
    Misuse(
        "a parameter that is no array",
        lambda: initial(v1.nn.Parameter("three", name="factor")),  # a v2 parameter refuses it itself
        ModelError,
        r"^Parameter 'factor' at .* holds str, expected an array\.",
    ),
    Misuse(
        "a trainer of no model",
        lambda: Trainer(3, ADAM, zoo.regression_loss).init(KEY),
        ModelError,
        r"^Expected a model or a function that builds one, got int 3\.$",
    ),
    Misuse(
        "a function that builds no model",
        lambda: Trainer(lambda key: None, ADAM, zoo.regression_loss).init(KEY),
        ModelError,
        r"^Expected a model of one of the libraries penzai, penzai v1; got NoneType",
    ),
    # the state and its parts
    Misuse(
        "an optimiser that was not called",
        lambda: initial(optimizer=optax.adam),
        StateError,
        r"^Expected an optax optimiser with init and update, got adam\. Call it first: optax\.adam",
    ),
    Misuse(
        "an optimiser by its name",
        lambda: initial(optimizer="adam"),
        StateError,
        r"^Expected an optax optimiser with init and update, got str\.$",
    ),
    Misuse(
        "a seed in the place of a key",
        lambda: initial(key=0),
        StateError,
        r"^Expected one random key as root_rng, got int 0\. Use jax\.random\.key\(seed\)\.$",
    ),
    Misuse(
        "several keys in the place of one",
        lambda: initial(key=jax.random.split(KEY)),
        StateError,
        r"^Expected one random key as root_rng, got key<fry>\[2\]\.",
    ),
    Misuse(
        "a seed in the place of the trainer's key",
        lambda: trainer().init(0),
        StateError,
        r"^Expected one random key.*got int 0\. Use jax\.random\.key\(seed\)\.$",
    ),
    Misuse(
        "a loss function's state of text",
        lambda: initial(loss_fn_state={"name": "mine"}),
        StateError,
        r"^Expected an array at 'loss_fn_state/name', got str\.$",
    ),
    Misuse(
        "an unknown field",
        lambda: state().replace(parms={}),
        StateError,
        r"^TrainState has no field 'parms'\. Did you mean 'params'\?$",
    ),
    Misuse(
        "a gradient that is missing",
        lambda: state().apply_gradients(grads(**{BIAS: None})),
        StateError,
        rf"^'{re.escape(BIAS)}' has no gradient\. The nearest name there is 'mlp/Affine_1/AddBias\.bias'\.$",
    ),
    Misuse(
        "a gradient too many",
        lambda: state().apply_gradients(grads(**{"mlp/Affine_0/AddBias.bais": jnp.zeros(8)})),
        StateError,
        rf"^'mlp/Affine_0/AddBias\.bais' is no parameter of this state\. The nearest .*'{re.escape(BIAS)}'",
    ),
    Misuse(
        "a gradient of another shape",
        lambda: state().apply_gradients(grads(**{BIAS: jnp.zeros(7)})),
        StateError,
        rf"^The gradient of '{re.escape(BIAS)}' has shape \(7,\), expected \(8,\)\.$",
    ),
    Misuse(
        "gradients without names",
        lambda: state().apply_gradients([jnp.zeros(8)]),
        StateError,
        r"^Expected gradients as a dict by path, got list\.$",
    ),
    Misuse(
        "a model in the place of a state",
        lambda: good_step()(zoo.mlp().model, BATCH),
        StateError,
        r"^Expected a TrainState, got MLP\.$",
    ),
    Misuse(
        "state and batch in the wrong order",
        lambda: trainer().step(BATCH, state()),
        StateError,
        r"^Expected a TrainState, got dict\.$",
    ),
    Misuse(
        "a model in the place of a state to fit",
        lambda: trainer().fit(zoo.mlp().model, [BATCH]),
        StateError,
        r"^Expected a TrainState, got MLP\.$",
    ),
    Misuse(
        "a model in the place of a state to predict with",
        lambda: trainer().predict(zoo.mlp().model, INPUT),
        StateError,
        r"^Expected a TrainState, got MLP\.$",
    ),
    Misuse(
        "a model in the place of a state to evaluate",
        lambda: trainer().evaluate(zoo.mlp().model, [BATCH]),
        StateError,
        r"^Expected a TrainState, got MLP\.$",
    ),
    *(
        Misuse(
            f"a donated state {what}",
            call,
            StateError,
            r"^The arrays of this state are gone \(.* is deleted\): it was given to a step that donates\.",
        )
        for what, call in {
            "in a step": lambda: good_step()(donated(), BATCH),
            "in the step that donated it": lambda: donating_step()(donated(), BATCH),
            "as a model": lambda: donated().model,
            "in a snapshot": lambda: donated().to_snapshot(),
            "in predict": lambda: trainer().predict(donated(), INPUT),
            "in evaluate": lambda: trainer().evaluate(donated(), [BATCH]),
            "in fit": lambda: trainer().fit(donated(), [BATCH]),
            "in fit with a report": lambda: trainer().fit(donated(), [BATCH], report=lambda *_: None),
            "in apply_gradients": lambda: donated().apply_gradients(grads()),
        }.items()
    ),
    # snapshots
    Misuse(
        "a snapshot of an unknown schema",
        lambda: load(snapshot(schema="toolshed.train_state/2")),
        SnapshotError,
        r"^Unknown snapshot schema 'toolshed\.train_state/2'; this version of toolshed reads 'tools",
    ),
    Misuse(
        "a snapshot of a wider model",
        lambda: load(new_state(zoo.mlp()._replace(model=mlp(feature_sizes=[4, 16, 1]))).to_snapshot()),
        SnapshotError,
        rf"params/{re.escape(BIAS)}: saved float32\[16\], expected float32\[8\]",
    ),
    Misuse(
        "a snapshot of another model",
        lambda: load(new_state(zoo.shared_parameter()).to_snapshot()),
        SnapshotError,
        rf"(?s)params/{re.escape(BIAS)}: saved absent, expected float32\[8\].*Build `like` with the model",
    ),
    Misuse(
        "a snapshot of another optimiser",
        lambda: load(new_state(zoo.mlp(), optax.sgd(1e-2)).to_snapshot()),
        SnapshotError,
        r"(?s)opt_state/0/count: saved absent, expected int32\[\].*saved with the optimizer .*; this state",
    ),
    Misuse(
        "a snapshot that is none",
        lambda: load({"params": {}}),
        SnapshotError,
        r"^Expected a snapshot, a dict with a 'schema'; got dict without one\.$",
    ),
    Misuse(
        "a snapshot that is not whole",
        lambda: load(snapshot(opt_state=None)),
        SnapshotError,
        r"^The snapshot lacks 'opt_state': it is not whole\.$",
    ),
    # building a step
    Misuse(
        "an unknown field of the Context",
        lambda: build_train_step(zoo.regression_loss, fields=("grad",)),
        ValueError,
        r"^Context has no field 'grad'\. Did you mean 'grads'\?$",
    ),
    Misuse(
        "no steps in a call",
        lambda: build_train_step(zoo.regression_loss, steps_per_call=0),
        ValueError,
        r"^steps_per_call is 0; expected a whole number from 1\.$",
    ),
    Misuse(
        "no steps in a call of a trainer",
        lambda: Trainer(zoo.mlp().model, ADAM, zoo.regression_loss, steps_per_call=0),
        ValueError,
        r"^steps_per_call is 0; expected a whole number from 1\.$",
    ),
    Misuse(
        "check_finite and donate",
        lambda: build_train_step(zoo.regression_loss, check_finite=True, donate=True),
        ValueError,
        r"^check_finite stops before a bad update takes effect, .*donate and steps_per_call leave none",
    ),
    Misuse(
        "check_finite and several steps in a call",
        lambda: build_train_step(zoo.regression_loss, check_finite=True, steps_per_call=2),
        ValueError,
        r"^check_finite stops before a bad update takes effect",
    ),
    Misuse(
        "recording what is not a scalar",
        lambda: record("aux/preds"),
        ValueError,
        r"^Only scalars can be recorded; 'aux/preds' is float32\[8,1\]\.$",
    ),
    Misuse(
        "recording a path that is not there",
        lambda: record("aux/pred"),
        ContextKeyError,
        r"^No 'aux/pred' in this Context\. Did you mean 'aux/preds'",
    ),
    Misuse(
        "recording many paths at once",
        lambda: record("grads/**"),
        ValueError,
        r"^Only scalars can be recorded; 'grads/\*\*' is",
    ),
    Misuse(
        "a tape without room",
        lambda: toolshed.Tape(("loss_total",), 0),
        ValueError,
        r"^Expected a capacity of at least 1 row, got 0\.$",
    ),
    # reading a Context
    Misuse(
        "a typo in a path",
        lambda: context()["grads/mlp/Affine_0/AddBias.bais"],
        ContextKeyError,
        rf"^No 'grads/mlp/Affine_0/AddBias\.bais' in this Context\. Did you mean 'grads/{re.escape(BIAS)}'",
    ),
    Misuse(
        "a pattern that nothing matches",
        lambda: context()["grads/*/wights"],
        ContextKeyError,
        r"^No 'grads/\*/wights' in this Context\.",
    ),
    Misuse(
        "a field that was not filled",
        lambda: context(fields=("grads",)).updates,
        FieldNotFilled,
        r"^This step did not fill Context\.updates; ask for it: build_train_step\(…, fields=\('updates",
    ),
    Misuse(
        "a path in a field that was not filled",
        lambda: context(fields=("grads",))["updates/mlp"],
        FieldNotFilled,
        r"^This step did not fill Context\.updates; ask for it",
    ),
    Misuse(
        "a typo in a field",
        lambda: context().gradients,
        AttributeError,
        r"^Context has no field 'gradients'\. Did you mean 'grads'\?$",
    ),
    Misuse(
        "a Context that is assigned to",
        lambda: setattr(context(), "grads", {}),
        AttributeError,
        r"^A Context does not change\. Use context\.replace\(grads=…\)\.$",
    ),
    # data
    Misuse(
        "no data",
        lambda: trainer().fit(state(), []),
        DataError,
        r"^The data gave no batch\. If it is a generator, it is used up: pass something that can be iterated",
    ),
    Misuse(
        "a generator that is used up",
        lambda: trainer().evaluate(state(), iter([])),
        DataError,
        r"^The data gave no batch\. If it is a generator, it is used up",
    ),
    Misuse(
        "data that cannot be iterated",
        lambda: trainer().fit(state(), 5, steps=3),
        DataError,
        r"^Expected an iterable of batches, got int\.$",
    ),
    Misuse(
        "a batch in the place of the data",
        lambda: trainer().fit(state(), BATCH, steps=3),
        DataError,
        r"^Expected .*batch",
    ),
    Misuse(
        "an array in the place of the data",
        lambda: trainer().fit(state(), X, steps=3),
        BatchError,
        r"^Expected a batch as a dict by name.*got float32\[4\]",
    ),
    Misuse(
        "a negative number of steps",
        lambda: trainer().fit(state(), [BATCH], steps=-1),
        DataError,
        r"^steps is -1; expected at least 0\.$",
    ),
    Misuse(
        "half a step",  # no number of steps done ever equals it: over a list it would train without end
        lambda: list(zip(range(5), feed([BATCH], 2.5), strict=False)),
        DataError,
        r"^steps is 2\.5; expected",
    ),
    Misuse(
        "arrays of different lengths",
        lambda: from_arrays({"x": np.zeros((4, 2)), "y": np.zeros(5)}, 2),
        DataError,
        r"^The arrays differ in their number of examples: x 4, y 5\.$",
    ),
    Misuse(
        "batches of no example",
        lambda: stream(batch_size=0),
        DataError,
        r"^batch_size is 0; expected a whole number from 1\.$",
    ),
    Misuse(
        "an unknown way with the last batch",
        lambda: stream(last="pad"),
        DataError,
        r"^last is 'pad'; expected 'keep', 'drop' or 'mask'\.$",
    ),
    Misuse(
        "the position of another stream",
        lambda: stream().restore(stream(seed=1).state()),
        DataError,
        r"^The saved position is of another stream: seed 1 is not 0\.$",
    ),
    Misuse(
        "the position in another data set",
        lambda: stream(8).restore(stream(9).state()),
        DataError,
        r"^The saved position is of another stream: fingerprint",
    ),
    # metrics
    Misuse(
        "metrics in a plain dict",
        lambda: Trainer(
            zoo.mlp().model, ADAM, zoo.regression_loss, metrics={"a": toolshed.metrics.Accuracy()}
        ),
        StateError,
        r"toolshed\.metrics\.collection",
    ),
    Misuse(
        "a metric that is none",
        lambda: toolshed.metrics.collection(accuracy="accuracy"),
        ToolshedError,
        r"accuracy.* str",
    ),
]


def test_the_table_is_as_long_as_was_promised_and_names_each_once():
    assert len(TABLE) >= 30
    assert len({misuse.name for misuse in TABLE}) == len(TABLE)


@pytest.mark.parametrize("misuse", TABLE, ids=lambda misuse: misuse.name)
def test_a_wrong_call_gives_one_clear_error_and_breaks_nothing(misuse):
    before = values_of(state())
    after = expected()
    with pytest.raises(misuse.error) as caught:
        misuse.call()
    assert type(caught.value) is misuse.error  # not a subclass that only happens to be one
    text = str(caught.value)  # without the notes that jax adds
    assert re.search(misuse.message, text), text
    assert differing(values_of(state()), before) == []
    good, _ = good_step()(state(), BATCH)
    assert differing(values_of(good), after) == []


def test_a_good_step_is_no_misuse():
    good, _ = good_step()(state(), BATCH)
    assert int(good.step) == 3
    assert good_step().traces >= 1
    assert differing(good.params, state().params) == sorted(state().params)
