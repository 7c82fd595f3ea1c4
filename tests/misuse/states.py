"""Models, states and snapshots that cannot be."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import optax
from penzai import pz
from penzai.deprecated.v1 import pz as v1

from tests import zoo
from tests.misuse.calls import (
    ADAM,
    BATCH,
    BIAS,
    INPUT,
    KEY,
    Misuse,
    donated,
    donating_step,
    good_step,
    grads,
    initial,
    load,
    mlp,
    scale_by,
    snapshot,
    state,
    trainer,
)
from tests.training.by_hand import new_state
from toolshed import Trainer
from toolshed.errors import ModelError, SnapshotError, StateError

TABLE = [
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
]
