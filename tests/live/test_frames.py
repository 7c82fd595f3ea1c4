"""A scene as bytes and back, as the widget's module reads it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.live.scripted import branched, training
from toolshed.live.frames import pack
from toolshed.live.panels import NAMES
from toolshed.live.scene import Line, Scene, whole
from toolshed.run import History, Window


def unpack(frame: bytes) -> tuple[dict[str, Any], list[dict[str, np.ndarray]]]:
    """What ``frames.js`` does, once more."""
    length = int(np.frombuffer(frame, "<u4", 1)[0])
    header, at, lines = json.loads(frame[8 : 8 + length]), 8 + length, []
    for line in header["lines"]:

        def take(kind: str, count: int) -> np.ndarray:
            nonlocal at
            at += 4 * count
            return np.frombuffer(frame, kind, count, at - 4 * count)

        n, every = line["n"], line["every"]
        if every:
            steps = np.array([line["first"], *(line["second"] + every * np.arange(n - 1))])
        else:
            steps = line["first"] + take("<u4", n).astype(np.int64)
        low = take("<f4", n)
        high = low if line["flat"] else take("<f4", n)
        mean = low if line["flat"] else take("<f4", n)
        bad = line["origin"] + take("<u4", line["bad"]).astype(np.int64)
        lines.append({"steps": steps, "low": low, "high": high, "bad": bad, "mean": mean})
    assert at == len(frame), "every byte is accounted for"
    return header, lines


@st.composite
def windows(draw: Any) -> Window:
    gaps = draw(st.lists(st.integers(1, 2**20), max_size=12))
    first = draw(st.integers(0, 2**40))
    steps = np.cumsum([first, *gaps])[: len(gaps)].astype(np.int64)
    floats = hnp.arrays(
        np.float32, len(steps), elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)
    )
    values = np.sort(np.stack([draw(floats), draw(floats)]), axis=0)
    bad = np.cumsum(draw(st.lists(st.integers(1, 9), max_size=4))).astype(np.int64)
    high = values[draw(st.booleans()) * 1]
    mean = np.where(values[0] == high, high, values[0] / 2 + high / 2)
    return Window(steps, values[0], high, bad, mean)


@settings(deadline=None, max_examples=60)
@given(st.lists(windows(), max_size=4))
def test_what_is_packed_comes_out_the_same(given_windows):
    lines = tuple(Line(place, "main", True, window, 0.5) for place, window in enumerate(given_windows))
    header, found = unpack(pack(Scene(7, "main", 0, 1, (), (), lines)))
    assert (header["version"], header["branch"]) == (7, "main")
    for window, line in zip(given_windows, found, strict=True):
        for name, values in zip(("steps", "low", "high", "bad", "mean"), window, strict=True):
            np.testing.assert_array_equal(line[name], values)


def test_values_that_are_not_finite_are_text_in_the_header():
    history = History()
    history.append("train/loss", [1, 2], [1.0, np.nan])
    header, (line,) = unpack(pack(whole(history)))
    assert header["lines"][0]["last"] == "NaN"
    assert line["bad"].tolist() == [2]


def test_the_header_names_panels_and_lines():
    header, _ = unpack(pack(whole(training().history)))
    assert header["panels"][0] == {
        "title": "loss",
        "shown": True,
        "lines": [{"id": 0, "label": "train"}, {"id": 2, "label": "eval"}],
    }
    assert header["left_out"] == 0


def test_even_steps_cost_no_bytes():
    history = History()
    history.append("train/loss", np.arange(1, 901), np.arange(900.0))
    even = len(pack(whole(history)))
    history = History()
    history.append("train/loss", np.append(np.arange(1, 900), 1000), np.arange(900.0))
    assert len(pack(whole(history))) - even > 3500  # 4 bytes a step, less what the header is shorter


def test_a_frame_is_bounded_whatever_was_logged():
    """Many steps, sixty long names, ten branches, and every hundredth value NaN."""
    history = History()
    steps = np.arange(1, 20_001)
    values = np.random.default_rng(0).standard_normal(len(steps))
    values[::100] = np.nan
    for i in range(60):
        history.append(f"mine/{i:03}/{'long name' * 100}", steps, values)
    for branch in range(10):
        history.begin_branch(f"branch {branch} {'x' * 500}", at=10_000)
        for i in range(60):
            history.append(f"mine/{i:03}/{'long name' * 100}", steps[10_000:], values[10_000:])
    frame = pack(whole(history))
    header, lines = unpack(frame)
    assert len(frame) < 100_000
    assert header["left_out"] == 60 - NAMES
    assert len({panel["title"] for panel in header["panels"]}) == NAMES, "cut titles stay different"
    assert len(lines) >= NAMES


def test_the_frame_of_an_ordinary_long_run_is_below_60_kb():
    history = History()
    steps = np.arange(1, 500_001)
    noise = np.random.default_rng(0).standard_normal(len(steps))
    for name in ("train/loss", "train/accuracy", "optim/learning_rate", "optim/grad_norm", "speed/steps"):
        history.append(name, steps, noise)
    history.append("eval/loss", steps[::1000], noise[::1000])
    assert len(pack(whole(history))) < 60_000


def test_other_branches_come_after_the_current_one():
    header, _ = unpack(pack(whole(branched().history)))
    current = [line["current"] for line in header["lines"]]
    assert current == sorted(current, reverse=True)
    assert {line["branch"] for line in header["lines"]} == {"b2", "b1", "main"}
