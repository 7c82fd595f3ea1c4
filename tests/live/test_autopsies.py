"""An autopsy as the views show it: in words, whatever the event holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.scripted import event
from toolshed.live.autopsies import newest

DATA: dict[str, Any] = {
    "headline": "log gives -∞ for finite arguments",
    "lines": [
        "log gives -∞ for finite arguments",
        "  at       train.py:12 in loss_fn",
        "             return jnp.log(p)",
        "  operand  params/w float32[4], 0 there, from 0 to 1",
        "  step     7",
    ],
    "batch": {
        "place": "batch 7 of epoch 1",
        "size": 4,
        "fields": [
            {"path": "x", "type": "float32[4,2]", "min": -0.25, "max": 1e-9, "nan": 3, "infinite": 0,
             "examples": [0, 1, 3], "bad": 5},
            {"path": "y", "type": "int32[4]", "min": None, "max": None, "nan": 0, "infinite": 0,
             "examples": [], "bad": 0},
        ],
        "left_out": 0,
        "examples": [2],
    },
}  # fmt: skip


def test_lines_have_labels_and_the_batch_is_a_table():
    found = newest((event("autopsy", 7, "log gives -∞", **DATA),))
    assert (found["step"], found["headline"]) == (7, "log gives -∞ for finite arguments")
    assert found["lines"] == [
        ["at", "train.py:12 in loss_fn"],
        ["", "return jnp.log(p)"],
        ["operand", "params/w float32[4], 0 there, from 0 to 1"],
    ]
    assert found["fields"] == [
        ["x", "float32[4,2]", "-0.25", "1e-9", "3", "0", "0, 1, 3 and 2 more"],
        ["y", "int32[4]", "–", "–", "0", "0", ""],
    ]
    assert (found["place"], found["examples"], found["left_out"]) == ("batch 7 of epoch 1", "2", "")


def test_the_newest_counts_and_without_one_there_is_nothing():
    events = (event("autopsy", 7, **DATA), event("note", 8), event("autopsy", 9, **DATA), event("saved", 9))
    assert newest(events)["step"] == 9
    assert newest((event("nonfinite", 7),)) == {}


NASTY = "<img src=x onerror=alert(1)>" * 100


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"lines": NASTY, "batch": NASTY, "headline": 3},
        {
            "lines": [NASTY, 3, None, [NASTY]],
            "batch": {"fields": [3, {"path": NASTY, "min": NASTY, "nan": {}}]},
        },
        {"lines": [NASTY] * 500, "batch": {"fields": [{"examples": [NASTY] * 99, "bad": 10**400}] * 99}},
        {"batch": {"fields": [{"min": float("inf"), "max": 10**400, "bad": "x"}], "left_out": NASTY}},
    ],
)
def test_what_a_stranger_s_file_holds_becomes_bounded_text(data):
    found = newest((event("autopsy", 7, "text", **data),))
    assert len(json.dumps(found, allow_nan=False)) < 25_000
    assert all(isinstance(word, str) for row in (*found["lines"], *found["fields"]) for word in row)
