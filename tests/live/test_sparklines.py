from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.live.sparklines import ASCII, UNICODE, Curve, Row, Signs, extent, sparkline
from toolshed.run import History, Window


def curve(steps: list[int], values: list[float], style: str = "train", points: int = 1000) -> Curve:
    history = History()
    history.append("x", steps, values)
    return Curve(history.window("x", steps[0], steps[-1], points), style)


def text(rows: list[Row]) -> list[str]:
    return ["".join(letters for letters, _ in row) for row in rows]


def dots(rows: list[Row], signs: Signs) -> np.ndarray:
    """Which dots of the characters are set, read back: bool[height · signs.rows, width · signs.columns]."""
    places = {1: (0, 0), 2: (1, 0), 4: (2, 0), 64: (3, 0), 8: (0, 1), 16: (1, 1), 32: (2, 1), 128: (3, 1)}
    codes = {" ": 0, "'": 1, ".": 2, ":": 3}
    lines = text(rows)
    board = np.zeros((len(lines) * signs.rows, len(lines[0]) * signs.columns), bool)
    for y, line in enumerate(lines):
        for x, letter in enumerate(line):
            code = codes[letter] if signs is ASCII else (ord(letter) - 0x2800 if letter != " " else 0)
            for bit, (row, column) in places.items():
                if code & bit:
                    board[y * signs.rows + row, x * signs.columns + column] = True
    return board


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right():
    rows = sparkline([curve([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7])], 0, 7, 4, 2)
    # two dots a character and four rows in each: a diagonal of 8 by 8 dots
    assert text(rows) == ["  ⡠⠊", "⡠⠊  "]
    assert [[style for _, style in row] for row in rows] == [["", "train"], ["train", ""]]
    board = dots(rows, UNICODE)
    assert board.tolist() == np.eye(8, dtype=bool)[::-1].tolist()


def test_where_there_is_no_braille_it_is_made_of_full_stops():
    rows = sparkline([curve([0, 1, 2, 3], [0, 1, 2, 3])], 0, 3, 4, 2, signs=ASCII)
    assert text(rows) == ["  .'", ".'  "]


@settings(deadline=None, max_examples=80)
@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=300),
    width=st.integers(1, 40),
    height=st.integers(1, 5),
    signs=st.sampled_from([UNICODE, ASCII]),
)
def test_each_value_is_at_its_place_and_a_line_has_no_holes(values, width, height, signs):
    steps = list(range(len(values)))
    drawn = curve(steps, values, points=max(2, width * signs.columns))
    rows = sparkline([drawn], 0, len(values) - 1, width, height, signs=signs)
    assert [len(line) for line in text(rows)] == [width] * height
    board = dots(rows, signs)
    low, high = extent([drawn])
    window = drawn.window
    for start, lowest, highest in zip(window.steps, window.low, window.high, strict=True):
        column = int(start) * board.shape[1] // len(values)
        for value in (float(lowest), float(highest)):
            level = round((value - low) / (high - low) * (len(board) - 1)) if high > low else len(board) // 2
            assert board[len(board) - 1 - level, column]
    filled = board.any(axis=0)
    first, last = np.flatnonzero(filled)[[0, -1]]
    assert filled[first : last + 1].all()
    for left, right in zip(board.T[first:last], board.T[first + 1 : last + 1], strict=True):
        touching = np.abs(np.flatnonzero(left)[:, None] - np.flatnonzero(right)).min()
        assert touching <= 1


def test_a_value_that_is_not_finite_is_a_cross_at_the_top():
    steps, values = list(range(10)), [0.0] * 10
    values[4], values[8] = np.nan, np.inf
    for signs, cross in ((UNICODE, "×"), (ASCII, "x")):
        rows = sparkline([curve(steps, values)], 0, 9, 10, 3, signs=signs)
        assert [place for place, letter in enumerate(text(rows)[0]) if letter == cross] == [4, 8]
        assert cross not in text(rows)[1] + text(rows)[2]
        assert [letters for letters, style in rows[0] if style == "odd"] == [cross, cross]


def test_marks_run_from_top_to_bottom_behind_the_curves():
    rows = sparkline([curve([0, 9], [0, 0])], 0, 9, 10, 3, marks=[3, 99, -1], signs=ASCII)
    assert [line[3] for line in text(rows)] == ["|", "'", "|"]
    assert "|" not in "".join(line[:3] + line[4:] for line in text(rows))


def test_where_two_curves_coincide_both_are_seen_and_elsewhere_each_is_itself():
    train, evaluated = curve([0, 19], [1, 1]), curve([0, 19], [1, 1], "eval")
    (row,) = sparkline([train, evaluated], 0, 19, 10, 1)
    assert {style for _, style in row} == {"train", "eval"}
    apart = sparkline([train, curve([0, 19], [5, 5], "eval")], 0, 19, 10, 2)
    assert [[style for _, style in row] for row in apart] == [["eval"], ["train"]]


def test_nothing_single_values_and_nan_alone_can_be_drawn():
    empty = Window(*(np.zeros(0, kind) for kind in (np.int64, np.float32, np.float32, np.int64, np.float32)))
    assert text(sparkline([Curve(empty, "train")], 0, 0, 5, 2)) == ["     "] * 2
    assert text(sparkline([], 0, 10, 5, 1)) == ["     "]
    assert text(sparkline([curve([7], [3.0])], 7, 7, 1, 1, signs=ASCII)) == ["'"]
    assert text(sparkline([curve([7], [np.nan])], 7, 7, 1, 1)) == ["×"]
    assert extent([curve([7], [np.nan])]) is None


@pytest.mark.parametrize("signs", [UNICODE, ASCII])
def test_characters_are_one_column_wide(signs):
    from rich.cells import cell_len

    letters = [signs.odd, signs.mark, signs.bar, signs.rest, "⣿" if signs is UNICODE else ":"]
    assert [cell_len(letter) for letter in letters] == [1] * len(letters)
    assert signs is UNICODE or "".join(letters).isascii()
