"""Wrong calls of a step, and of what builds one."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
from penzai import pz

import toolshed
from tests import zoo
from tests.misuse.calls import (
    ADAM,
    BATCH,
    BIAS,
    Misuse,
    X,
    Y,
    context,
    good_step,
    record,
    state,
    step_with,
    without_y,
)
from toolshed import Trainer, build_train_step
from toolshed.errors import BatchError, ContextKeyError, FieldNotFilled, LossError

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
]
