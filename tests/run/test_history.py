"""A history keeps every value, takes nothing out of order, and can be read meanwhile."""

from __future__ import annotations

import doctest
import re
import threading
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.run.histories import NAME, as_dict, with_branches
from toolshed.errors import HistoryError, ToolshedError
from toolshed.run import Branch, History, history

# --- one line ---------------------------------------------------------------------------------------


def test_a_new_history_is_one_empty_branch():
    kept = History()
    assert kept.branches == (Branch("main", None, 0),)
    assert (kept.branch, kept.names, kept.version, kept.nbytes) == ("main", [], 0, 0)
    assert kept.bounds() == (0, 0)


def test_names_are_in_the_order_of_their_first_appearance():
    kept = History()
    for name in ("z", "a", "z", "m"):
        kept.append(name, kept.version, 1.0)
    assert kept.names == ["z", "a", "m"]


def test_each_change_is_a_new_version_and_reading_is_none():
    kept = with_branches()
    before = kept.version
    kept.series(NAME), kept.window(NAME, 0, 9, 5), kept.last(NAME), kept.bounds()
    kept.append(NAME, [], [])
    assert kept.version == before == 8
    kept.append(NAME, [4], [0.0])
    assert kept.version == before + 1


@pytest.mark.parametrize(
    ("values", "kept_as"),
    [
        (0.1, np.float32(0.1)),
        (jnp.float32(3), 3.0),
        (jnp.bfloat16(1.5), 1.5),
        (np.float64(1e300), np.inf),  # float32 ends at 3.4e38
        (True, 1.0),
        (np.int64(2**24 + 1), 2.0**24),
        (float("nan"), np.nan),
        (-np.inf, -np.inf),
    ],
    ids=str,
)
def test_numbers_of_any_type_are_kept_as_float32(values, kept_as):
    kept = History()
    kept.append(NAME, 3, values)
    series = kept.series(NAME)
    assert series.values.dtype == np.float32
    np.testing.assert_array_equal(series.values, np.float32([kept_as]))
    np.testing.assert_array_equal(np.float32(kept.last(NAME)), np.float32([3, kept_as]))


def test_step_0_belongs_to_the_first_branch():
    kept = History()
    kept.append("eval/loss", 0, 1.0)
    assert kept.bounds() == (0, 0)
    assert kept.last("eval/loss") == (0, 1.0)


def test_bounds_are_over_all_names():
    kept = History()
    kept.append("train/loss", [5, 6], [1, 2])
    kept.append("eval/loss", [2, 4, 9], [1, 2, 3])
    assert kept.bounds() == (2, 9)


def test_a_window_has_both_its_ends_and_may_be_larger_than_the_line():
    kept = History()
    kept.append(NAME, np.arange(10, 20), np.arange(10))
    assert kept.window(NAME, 12, 15, 100).steps.tolist() == [12, 13, 14, 15]
    assert kept.window(NAME, -5, 2**70, 100).steps.tolist() == list(range(10, 20))
    assert kept.window(NAME, 15, 12, 100).steps.tolist() == []
    assert kept.window(NAME, 50, 60, 100).steps.tolist() == []


def test_values_take_few_bytes():
    kept = History()
    kept.append("every step", np.arange(200_000), np.zeros(200_000))
    dense = kept.nbytes
    assert dense / 200_000 < 4.52 * 1.26
    kept.append("now and then", np.cumsum(np.arange(200_000) % 7 + 1), np.zeros(200_000))
    assert (kept.nbytes - dense) / 200_000 < 12


# --- what is refused --------------------------------------------------------------------------------


def refused(kept: History, *arguments: Any) -> str:
    """The message of an append that is an error, and that changed nothing."""
    before = (kept.version, [as_dict(kept.series(name)) for name in kept.names], kept.names)
    with pytest.raises(HistoryError) as caught:
        kept.append(*arguments)
    assert before == (kept.version, [as_dict(kept.series(name)) for name in kept.names], kept.names)
    return str(caught.value)


def test_steps_that_do_not_increase_are_refused():
    kept = with_branches()
    assert refused(kept, NAME, [4, 5, 5], [1, 2, 3]) == (
        "train/loss: step 5 comes after step 5; steps must increase."
    )
    assert refused(kept, NAME, [3], [1]) == (
        "train/loss: step 3 on branch 'd', which has values up to step 3. To log a step once more, begin a"
        " branch before it: history.begin_branch(name, at=…)."
    )
    assert refused(kept, "other", [2], [1]) == (
        "other: step 2 on branch 'd', which begins after step 2. Steps up to there belong to 'c'."
    )
    assert refused(History(), NAME, [-1], [1]) == "train/loss: step -1; expected a number of steps done."


def test_rows_that_do_not_fit_each_other_are_refused():
    kept = History()
    assert refused(kept, NAME, [1, 2], [1.0]) == (
        "train/loss: got steps int64[2] and values float64[1]; expected a row of each, equally long."
    )
    assert "steps int64[1,2]" in refused(kept, NAME, [[1, 2]], [[1.0, 2.0]])
    assert refused(kept, NAME, [1.5], [1.0]) == (
        "train/loss: got steps float64[1] and values float64[1]; expected steps that are whole numbers."
    )
    assert refused(kept, NAME, [1], [1j]) == (
        "train/loss: got steps int64[1] and values complex128[1]; expected values that are real numbers."
    )
    assert "values that are real numbers" in refused(kept, NAME, [1], ["0.5"])
    for name in ("", 3):
        assert refused(kept, name, [1], [1]) == (
            f"Got {name!r} as the name of values; expected one such as 'train/loss'."
        )


@pytest.mark.parametrize("method", ["series", "last", "window"])
def test_a_name_that_is_not_there_is_an_error_that_names_the_nearest(method):
    kept, rest = with_branches(), (0, 1, 2) if method == "window" else ()
    with pytest.raises(HistoryError, match=r"^There are no values named 'train/los'\. Did you mean 'train"):
        getattr(kept, method)("train/los", *rest)
    with pytest.raises(HistoryError, match=r"^There is no branch 'zzz'\. There is main, b, c, d\.$"):
        getattr(kept, method)(NAME, *rest, branch="zzz")
    with pytest.raises(HistoryError, match=r"^There are no values named 'x'\.$"):
        getattr(History(), method)("x", *rest)


def test_a_branch_that_cannot_begin_is_an_error():
    kept = with_branches()
    with pytest.raises(HistoryError, match=r"^There is a branch 'b' already\. Choose another name, or"):
        kept.begin_branch("b", at=1)
    with pytest.raises(HistoryError, match=r"^A branch cannot begin at step -1; expected a number of"):
        kept.begin_branch("e", at=-1)
    with pytest.raises(HistoryError, match=r"^There is no branch 'bb'\. Did you mean 'b'\?$"):
        kept.switch("bb")
    assert (len(kept.branches), kept.branch) == (4, "d")


def test_a_window_of_no_columns_is_an_error():
    with pytest.raises(HistoryError, match=re.escape("A window of 1 points; expected at least 2.")):
        with_branches().window(NAME, 0, 9, 1)
    assert issubclass(HistoryError, (ToolshedError, ValueError))


# --- threads ----------------------------------------------------------------------------------------


def test_readers_never_see_a_half_written_block():
    """One writer, three readers: every line read is a beginning of what is written, in whole blocks."""
    kept, done, wrong = History(), threading.Event(), []

    def expected(steps: np.ndarray) -> np.ndarray:
        return (steps % 1000).astype(np.float32)

    def read() -> None:
        while not done.is_set():
            for name in kept.names:
                steps, values = kept.series(name)
                if len(steps) % 250 or steps.tolist() != list(range(1, len(steps) + 1)):
                    wrong.append(("steps", name, len(steps)))
                if not np.array_equal(values, expected(steps)):
                    wrong.append(("values", name))
                window = kept.window(name, 0, len(steps), 50)
                if len(steps) > 3000 and (window.low.min() != 0 or window.high.max() != 999):
                    wrong.append(("window", name))
                if kept.bounds()[1] < len(steps):
                    wrong.append(("bounds", name))

    def guarded() -> None:
        try:
            read()
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=guarded) for _ in range(3)]
    for reader in readers:
        reader.start()
    for block in range(200):
        if block == 100:
            kept.begin_branch("later", at=25_000)
        steps = np.arange(250 * block + 1, 250 * block + 251)
        for name in ("a", "b", f"new {block // 20}") if block < 20 else ("a", "b"):
            kept.append(name, steps, expected(steps))
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(kept.series("a").steps) == 50_000


def test_an_interrupted_write_has_changed_nothing(monkeypatch):
    """The interrupt strikes at the last moment, when all arrays are written, and the block comes again."""
    kept = with_branches()
    before = as_dict(kept.series(NAME))

    class Interrupted(History):
        def __setattr__(self, name: str, value: Any) -> None:
            raise KeyboardInterrupt

    kept.__class__ = Interrupted
    for write in (
        lambda: kept.append(NAME, np.arange(9, 2000), np.zeros(1991)),
        lambda: kept.begin_branch("e", at=2),
        lambda: kept.switch("b"),
    ):
        with pytest.raises(KeyboardInterrupt):
            write()
    object.__setattr__(kept, "__class__", History)
    assert as_dict(kept.series(NAME)) == before
    assert (kept.branch, len(kept.branches), kept.version) == ("d", 4, 8)
    kept.append(NAME, np.arange(9, 300), np.ones(291))
    assert as_dict(kept.series(NAME)) == {**before, **dict.fromkeys(range(9, 300), 1.0)}


def test_the_example_is_true():
    assert doctest.testmod(history).attempted > 4
    assert doctest.testmod(history).failed == 0
