"""Data and metrics that cannot be."""

from __future__ import annotations

import numpy as np

import toolshed
from tests import zoo
from tests.misuse.calls import ADAM, BATCH, Misuse, X, state, stream, trainer
from toolshed import Trainer
from toolshed.data import feed, from_arrays
from toolshed.errors import BatchError, DataError, StateError, ToolshedError

TABLE = [
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
