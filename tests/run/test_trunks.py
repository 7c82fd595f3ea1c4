"""Lines of many branches are read in few pieces, and are right whatever is written meanwhile."""

from __future__ import annotations

import numpy as np
import pytest

from toolshed.run import History, trunks
from toolshed.run.branches import line_of
from toolshed.run.windows import Piece

NAME = "train/loss"


def rewound(times: int, length: int = 2) -> History:
    """A history that went on by some steps, back by one, on again, …: a branch each time."""
    kept = History()
    for turn in range(times):
        kept.begin_branch(f"again {turn}", at=turn)
        kept.append(NAME, turn + 1 + np.arange(length), np.full(length, turn))
    return kept


def pieces(kept: History, start: int = 0, stop: int = 10**9) -> list[Piece]:
    return kept._trunks.pieces(kept._state, NAME, None, False, start, stop)


def test_many_rewinds_are_few_pieces_with_the_same_values():
    kept = rewound(300)
    assert len(line_of(kept._state, None)) == 301
    assert len(pieces(kept)) == 2  # all ancestors, and the newest branch
    steps, values = kept.series(NAME)
    assert steps.tolist() == list(range(1, 302))
    assert values.tolist() == [*range(300), 299]
    assert kept.window(NAME, 100, 200, 1000).low.tolist() == list(range(99, 200))
    assert kept.window(NAME, 300, 900, 1000).steps.tolist() == [300, 301]
    assert [piece.stop - piece.start for piece in pieces(kept, 5, 9)] == [5]


def test_a_line_of_few_branches_is_not_copied():
    kept = rewound(trunks.FEW - 1)  # with main as many as are few
    assert len(pieces(kept)) == trunks.FEW - 1  # main has no values
    assert kept._trunks._kept == {}


def test_what_was_put_together_is_kept_while_the_newest_branch_grows():
    kept = rewound(20)
    first = pieces(kept)[0].track
    for step in range(30, 40):
        kept.append(NAME, step, 7.0)
        assert pieces(kept)[0].track is first
        assert kept.last(NAME) == (step, 7.0) == (int(kept.series(NAME).steps[-1]), 7.0)


def test_an_ancestor_that_had_not_come_as_far_as_its_branch_may_still_grow():
    kept = History()
    kept.append(NAME, [1, 2], [1, 2])
    for turn in range(5):
        kept.begin_branch(f"b{turn}", at=10 + turn)
    kept.append(NAME, 20, 20)
    assert kept.series(NAME).steps.tolist() == [1, 2, 20]
    kept.switch("main")
    kept.append(NAME, [5, 10, 11], [5, 10, 11])
    assert kept.series(NAME, "b4").steps.tolist() == [1, 2, 5, 10, 20]  # 11 is after the parting
    kept.append(NAME, 12, 12)
    assert kept.series(NAME, "b4").steps.tolist() == [1, 2, 5, 10, 20]


def test_long_pieces_are_not_copied_and_short_ones_between_them_are(monkeypatch):
    monkeypatch.setattr(trunks, "SMALL", 5)
    kept, step = History(), 0
    for length in (2, 3, 9, 1, 1, 1, 8, 2):
        kept.begin_branch(f"from {step}", at=step)
        kept.append(NAME, step + 1 + np.arange(length), np.zeros(length))
        step += length
    assert [piece.stop - piece.start for piece in pieces(kept)] == [5, 9, 3, 8, 2]
    assert kept.series(NAME).steps.tolist() == list(range(1, 28))


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(trunks, "VALUES", 100)
    kept = rewound(40)
    for turn in range(40):
        kept.series(NAME, f"again {turn}")
    sizes = [sum(piece.stop - piece.start for piece in held) for _, held in kept._trunks._kept.values()]
    assert len(sizes) > 1
    assert sum(sizes) <= 100
    monkeypatch.setattr(trunks, "VALUES", 1)
    kept.append("other", 100, 1.0)
    kept.series("other")
    assert len(kept._trunks._kept) == 1


@pytest.mark.parametrize("own", [False, True])
def test_nan_and_means_come_through(own):
    kept = rewound(50, 3)
    kept.append(NAME, [60, 61, 62], [np.nan, 1.0, 3.0])
    window = kept.window(NAME, 0, 100, 5, own=own)
    assert window.nonfinite.tolist() == [60]
    expected = kept.series(NAME, own=own).values
    expected = expected[np.isfinite(expected)]
    assert window.high.max() == expected.max()
    assert window.low.min() == expected.min()
