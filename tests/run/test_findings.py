"""An autopsy as plain data: bounded whatever it is about, and right about the batch."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toolshed
from toolshed.insight.autopsy import Autopsy, Fault
from toolshed.insight.source import Source
from toolshed.run.feed import Feed
from toolshed.run.findings import EXAMPLES, FIELDS, TEXT, findings, sentence

PLACE = {"position": 20, "epoch": 2, "index": 6}


def fault(**changes: Any) -> Fault:
    source = Source("/home/someone/secret/train.py", 12, "loss_fn", "jnp.log(p)")
    places = ((3, 0), (5, 1))
    return Fault("log", -np.inf, places[0], places, 2, "float32[8,4]", source, **changes)


def autopsy(batch: dict[str, Any] | None = None, found: Fault | None = None) -> Autopsy:
    reaches = ("loss_total",)
    return Autopsy(found or fault(), None, reaches, compiled_finite=False, replay_finite=False, batch=batch)


def test_one_line_names_the_operation_and_the_line_but_no_folder():
    found = findings(autopsy(), PLACE)
    assert sentence(found) == "log gives -∞ for finite arguments, at train.py:12 in loss_fn"
    assert "someone" not in json.dumps(found)


@pytest.mark.parametrize(
    ("place", "length", "words"),
    [
        (PLACE, 7, "batch 7 of epoch 3"),
        (PLACE, None, "batch 7 of epoch 3"),  # epochs that are not equally long
        ({"position": 21, "epoch": 2, "index": 7}, 7, "batch 1 of epoch 4"),  # which has not begun yet
        ({"position": 20, "fingerprint": "…"}, 7, "batch 7 of epoch 3"),
        ({"position": 1234}, None, "batch 1,235"),
        ({"somewhere": 3}, 7, ""),
        (None, None, ""),
    ],
)
def test_the_place_of_a_batch_is_said_as_far_as_it_is_known(place, length, words):
    assert findings(autopsy(), place, length)["batch"]["place"] == words


def test_places_are_those_of_real_streams():
    for data in (toolshed.data.from_arrays({"x": np.zeros((12, 1))}, batch_size=4), [{"x": 0}] * 3):
        stream = data if isinstance(data, toolshed.data.Stream) else toolshed.data.stream(data)
        feed = Feed(stream)
        for _ in range(7):
            feed.take()
        assert findings(autopsy(), feed.position, feed.length)["batch"]["place"] == "batch 2 of epoch 3"


def test_the_examples_are_those_along_the_first_axis_of_the_result():
    def examples(size: int, **changes: Any) -> list[int]:
        batch = {"x": np.ones((size, 2))}
        return findings(autopsy(batch, fault(**changes)), PLACE)["batch"]["examples"]

    assert examples(8) == [3, 5]
    assert examples(4) == [], "its first axis is another one"


def test_fields_of_every_kind_are_described():
    batch = {
        "ids": np.arange(6).reshape(2, 3),
        "half": jnp.array([[1.0, jnp.nan], [2.0, jnp.inf]], jnp.bfloat16),
        "mask": np.array([True, False]),
        "none": np.full((2, 1), np.nan, np.float32),
        "one": np.float32(3),
        "key": jax.random.key(0),
        "names": np.array(["a", "b"]),
        "waves": np.ones(2, np.complex64),
    }
    fields = {field["path"]: field for field in findings(autopsy(batch), PLACE)["batch"]["fields"]}
    assert (fields["ids"]["min"], fields["ids"]["max"]) == (0.0, 5.0)
    half = fields["half"]
    assert (half["min"], half["max"], half["nan"], half["infinite"], half["examples"]) == (1, 2, 1, 1, [0, 1])
    assert (fields["mask"]["type"], fields["mask"]["min"], fields["mask"]["max"]) == ("bool[2]", 0.0, 1.0)
    assert (fields["key"]["type"], fields["key"]["min"]) == ("key<fry>[]", None)
    assert (fields["names"]["type"], fields["names"]["bad"]) == ("<U1[2]", 0)
    assert fields["waves"]["max"] is None
    assert (fields["none"]["min"], fields["none"]["nan"]) == (None, 2)
    assert fields["one"]["max"] == 3.0


def test_it_is_bounded_whatever_the_batch_is():
    batch = {f"{'long ' * 200}{i}": np.full((5000, 2), np.nan, np.float32) for i in range(40)}
    found = findings(autopsy(batch), PLACE)
    assert len(found["batch"]["fields"]) == FIELDS
    assert found["batch"]["left_out"] == 40 - FIELDS
    assert found["batch"]["fields"][0]["bad"] == 5000
    assert len(found["batch"]["fields"][0]["examples"]) == EXAMPLES
    assert len(found["batch"]["fields"][0]["path"]) == TEXT
    assert len(json.dumps(found, allow_nan=False)) < 20_000
