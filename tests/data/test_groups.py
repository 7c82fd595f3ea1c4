"""Sequences of consecutive groups, how often each is covered, and the split by order."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.data import GroupSequencer, train_validation_split
from toolshed.data.groups import GroupSource
from toolshed.errors import DataError

POLICIES = ("uniform-start", "coverage-uniform")
labels = st.lists(st.integers(-5, 9), min_size=1, max_size=30)


class Scripted:
    """In the place of a random generator: every way its draws can come out, each with its probability."""

    def __init__(self, choices: tuple[int, ...]):
        self.choices, self.ways = list(choices), []

    def integers(self, low: int, high: int, *, endpoint: bool) -> int:
        assert endpoint
        self.ways.append(high - low + 1)
        return low + (self.choices.pop(0) if self.choices else 0)


def distribution(count: int, max_length: int, policy: str) -> dict[tuple[int, int], Fraction]:
    """The exact probability of each sequence (first, end) of ``count`` groups."""
    source = GroupSource(np.arange(count), max_length, 0, policy, None)
    found: dict[tuple[int, int], Fraction] = {}
    for number in range(min(max_length, count)):
        probe = Scripted((number,))
        source._draw(probe)  # type: ignore[arg-type]
        for start in range(probe.ways[1]):
            script = Scripted((number, start))
            drawn = source._draw(script)  # type: ignore[arg-type]
            weight = Fraction(1, script.ways[0] * script.ways[1])
            found[drawn] = found.get(drawn, Fraction(0)) + weight
    return found


def coverage(found: dict[tuple[int, int], Fraction], count: int) -> list[Fraction]:
    """How probable it is that a sequence covers each group."""
    return [
        sum((p for (first, end), p in found.items() if first <= g < end), Fraction(0)) for g in range(count)
    ]


# --- what a sequence is -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(groups=labels, longest=st.integers(1, 8), seed=st.integers(0, 99), policy=st.sampled_from(POLICIES))
def test_a_sequence_is_a_run_of_neighbouring_groups_with_all_their_examples_in_order(
    groups, longest, seed, policy
):
    known = sorted(set(groups))
    for sequence in GroupSequencer(groups, longest, seed, sampling=policy, sequences=20):
        run = sequence.groups.tolist()
        assert 1 <= len(run) <= min(longest, len(known))
        first = known.index(run[0])
        assert run == known[first : first + len(run)]
        expected = [[i for i, group in enumerate(groups) if group == one] for one in run]
        assert [part.tolist() for part in sequence.split()] == expected
        assert sequence.indices.tolist() == [i for part in expected for i in part]
        assert sequence.sizes.tolist() == [len(part) for part in expected]


def test_groups_are_neighbours_when_no_label_lies_between_whatever_the_numbers():
    runs = {tuple(s.groups) for s in GroupSequencer([70, 3, 70, 9], 3, sequences=200)}
    assert runs == {(3,), (9,), (70,), (3, 9), (9, 70), (3, 9, 70)}


def test_an_epoch_has_as_many_sequences_as_groups_unless_it_is_said():
    assert len(GroupSequencer([5, 5, 6, 8], 2)) == len(list(GroupSequencer([5, 5, 6, 8], 2))) == 3
    assert len(list(GroupSequencer([5, 5, 6, 8], 2, sequences=7))) == 7


@pytest.mark.parametrize("policy", POLICIES)
def test_epochs_and_seeds_differ_and_equal_ones_agree(policy):
    def runs(seed: int) -> list[list[tuple[int, ...]]]:
        stream = GroupSequencer(range(50), 20, seed, sampling=policy)
        return [[tuple(s.groups) for s in stream] for _ in range(3)]

    assert runs(1) == runs(1)
    assert len({tuple(epoch) for epoch in [*runs(1), *runs(2)]}) == 6


def test_pinned_sequences_are_the_same_on_every_platform():
    """They may not change: a saved position would go on with others."""
    runs = {
        policy: [
            (int(s.groups[0]), len(s.groups))
            for s in GroupSequencer(range(100), 10, seed=7, sampling=policy, sequences=8)
        ]
        for policy in POLICIES
    }
    assert runs == {
        "uniform-start": [(89, 9), (50, 3), (14, 10), (54, 3), (40, 5), (12, 7), (43, 9), (32, 2)],
        "coverage-uniform": [(96, 4), (50, 3), (8, 10), (54, 3), (40, 5), (7, 7), (42, 9), (32, 2)],
    }


def test_a_sequencer_is_a_stream_that_is_restored_and_refuses_another_data_set():
    groups = [1, 1, 2, 3, 4]
    stream = GroupSequencer(groups, 2, seed=1, sequences=6)
    iterator = iter(stream)
    next(iterator), next(iterator)
    state = json.loads(json.dumps(stream.state()))
    twin = GroupSequencer(groups, 2, seed=1, sequences=6)
    twin.restore(state)
    assert [s.indices.tolist() for s in twin] == [s.indices.tolist() for s in iterator]
    with pytest.raises(DataError, match=r"seed=1, .* where this one has GroupSequencer\(.* seed=2"):
        GroupSequencer(groups, 2, seed=2, sequences=6).restore(state)
    with pytest.raises(DataError, match=r"with data \w{64} where this one has"):
        GroupSequencer([1, 2, 2, 3, 4], 2, seed=1, sequences=6).restore(state)


def test_a_sequence_is_a_copy_that_may_be_changed():
    stream = GroupSequencer([1, 1], 1, sequences=2)
    for sequence in stream:
        assert sequence.indices.tolist() == [0, 1]
        assert sequence.sizes.tolist() == [2]
        for array in sequence:
            array[:] = 99


# --- how it is drawn --------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "longest"), [(1, 1), (4, 1), (4, 2), (5, 5), (6, 4), (3, 9)])
def test_uniform_start_draws_the_length_uniformly_and_then_the_start(count, longest):
    lengths = min(longest, count)
    expected = {
        (first, first + length): Fraction(1, lengths * (count - length + 1))
        for length in range(1, lengths + 1)
        for first in range(count - length + 1)
    }
    assert distribution(count, longest, "uniform-start") == expected


@pytest.mark.parametrize(("count", "longest"), [(1, 1), (4, 1), (4, 2), (5, 5), (6, 4), (7, 3), (3, 9)])
def test_coverage_uniform_covers_every_group_equally_to_the_last_digit(count, longest):
    """A drawn length l covers a group by l of its G + l - 1 starts."""
    found = distribution(count, longest, "coverage-uniform")
    lengths = range(1, min(longest, count) + 1)
    expected = sum((Fraction(n, count + n - 1) for n in lengths), Fraction(0)) / len(lengths)
    assert sum(found.values()) == 1
    assert coverage(found, count) == [expected] * count


def test_uniform_start_covers_the_ends_less():
    """The negative control: sequences of at most two of four groups.

    Length 1 covers each of 4 with 1/4. Length 2 has three starts: the ends are in one, the others in two.
    Half of each: (1/4 + 1/3)/2 = 7/24 at the ends, (1/4 + 2/3)/2 = 11/24 inside.
    """
    found = coverage(distribution(4, 2, "uniform-start"), 4)
    assert found == [Fraction(7, 24), Fraction(11, 24), Fraction(11, 24), Fraction(7, 24)]


def test_coverage_uniform_makes_shorter_sequences():
    """Drawn lengths are uniform; of the G + l - 1 places of length l two each are cut to 1, ..., l - 1."""
    count, longest = 6, 4
    lengths: Counter[int] = Counter()
    for (first, end), p in distribution(count, longest, "coverage-uniform").items():
        lengths[end - first] += p  # type: ignore[assignment]
    for k in range(1, longest + 1):
        whole = Fraction(count - k + 1, count + k - 1)
        cut = sum((Fraction(2, count + n - 1) for n in range(k + 1, longest + 1)), Fraction(0))
        assert lengths[k] == (whole + cut) / longest


def test_the_drawn_sequences_cover_as_the_enumeration_says():
    """4,000 sequences: the share of a group has deviation sqrt(p (1 - p) / 4000) < 0.008."""
    for policy in POLICIES:
        counts = np.zeros(6)
        for sequence in GroupSequencer(range(6), 4, seed=3, sampling=policy, sequences=4000):
            counts[sequence.groups] += 1
        expected = [float(p) for p in coverage(distribution(6, 4, policy), 6)]
        assert np.abs(counts / 4000 - expected).max() < 5 * 0.008


# --- the split --------------------------------------------------------------------------------------


@given(groups=labels, last=st.integers(1, 5), gap=st.integers(0, 3))
def test_the_last_groups_validate_the_gap_is_in_neither_and_the_rest_trains(groups, last, gap):
    known = sorted(set(groups))
    if last + gap >= len(known):
        with pytest.raises(DataError, match=r"^Nothing is left to train on: of \d+ groups"):
            train_validation_split(groups, last, gap)
        return
    split = train_validation_split(groups, last, gap)
    assert split.validation.tolist() == [i for i, g in enumerate(groups) if g in known[-last:]]
    assert split.train.tolist() == [i for i, g in enumerate(groups) if g in known[: len(known) - last - gap]]


def test_nothing_to_train_on_is_an_error_that_counts():
    message = (
        r"^Nothing is left to train on: of 3 groups 2 are for validation and 1 are the gap\. Take fewer of"
        r" either\.$"
    )
    with pytest.raises(DataError, match=message):
        train_validation_split([1, 2, 3], 2, gap=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GroupSequencer([1], 0), r"^max_length is 0; expected a whole number from 1\.$"),
        (lambda: GroupSequencer([1], -2), r"^max_length is -2; expected a whole number from 1\.$"),
        (lambda: GroupSequencer([1], 1, seed=-1), r"^seed is -1; expected a whole number from 0\.$"),
        (lambda: GroupSequencer([1], 1, sequences=0), r"^sequences is 0; expected a whole number from 1\.$"),
        (
            lambda: GroupSequencer([1], 1, sampling="uniform"),  # type: ignore[arg-type]
            r"^sampling is 'uniform'; expected 'uniform-start' or 'coverage-uniform'\.$",
        ),
        (lambda: GroupSequencer([], 1), r"^groups holds no example\.$"),
        (
            lambda: GroupSequencer([1.5], 1),
            r"^groups is float64\[1\]; expected a whole number for each example",
        ),  # type: ignore[list-item]
        (lambda: GroupSequencer(np.ones((2, 2), int), 1), r"^groups is int64\[2,2\]; expected"),
        (lambda: GroupSequencer(["a"], 1), r"^groups is <U1\[1\]; expected"),  # type: ignore[list-item]
        (
            lambda: train_validation_split([1, 2], 0),
            r"^validation_groups is 0; expected a whole number from 1\.$",
        ),
        (lambda: train_validation_split([1, 2], -1), r"^validation_groups is -1; expected"),
        (lambda: train_validation_split([1, 2], 1, gap=-1), r"^gap is -1; expected a whole number from 0\.$"),
        (lambda: train_validation_split([], 1), r"^groups holds no example\.$"),
    ],
)
def test_what_makes_no_sequence_is_refused_at_once(call: Any, message: str):
    with pytest.raises(DataError, match=message):
        call()
