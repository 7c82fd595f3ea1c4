"""Drawings as PNG, read by another implementation."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from toolshed.live.drawing import Bitmap, Drawing, Item, Line, Shape, Text
from toolshed.live.glyphs import HEIGHT, PITCH, WIDTH, glyphs, write
from toolshed.live.raster import to_png


def read(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.mode == "RGB"
    return np.asarray(image)


def draw(*items: Item, width: int = 40, height: int = 30) -> np.ndarray:
    return read(to_png(Drawing(width, height, items)))


def test_an_empty_sheet_is_white():
    assert (draw() == 255).all()


def test_a_rectangle_has_its_area():
    shape = Shape(np.array([[10.0, 5.0], [30.0, 5.0], [30.0, 20.0], [10.0, 20.0]]), "#000000")
    sheet = draw(shape)
    assert (sheet[5:20, 10:30] == 0).all()
    assert (sheet == 0).all(axis=2).sum() == 15 * 20


def test_a_bitmap_has_sharp_pixels_in_its_place():
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)
    sheet = draw(Bitmap(4, 6, 20, 10, pixels))
    for row in range(2):
        for column in range(2):
            part = sheet[6 + 5 * row : 11 + 5 * row, 4 + 10 * column : 14 + 10 * column]
            assert (part == pixels[row, column]).all()
    assert (sheet == 255).all(axis=2).sum() == 40 * 30 - 20 * 10


def test_a_triangle_covers_half_of_its_rectangle():
    sheet = draw(Shape(np.array([[10.0, 5.0], [30.0, 5.0], [10.0, 25.0]]), "#000000"))
    assert (1 - sheet[..., 0] / 255).sum() == pytest.approx(200, rel=0.03)


def test_a_band_that_is_concave_is_filled_between_its_edges():
    """As the spread of a line: up, down, up."""
    x = np.array([0.0, 20.0, 40.0])
    top, bottom = np.array([5.0, 20.0, 5.0]), np.array([10.0, 25.0, 10.0])
    edge = np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])
    sheet = draw(Shape(edge, "#000000"))
    assert (sheet[22, 20] == 0).all()
    assert (sheet[8, 20] == 255).all()
    assert (sheet[28, 20] == 255).all()


def test_half_opacity_is_half_way_to_the_colour():
    sheet = draw(Shape(np.array([[0.0, 0.0], [40.0, 0.0], [40.0, 30.0], [0.0, 30.0]]), "#0072b2", 0.5))
    np.testing.assert_allclose(sheet[10, 10], [127, 184, 216], atol=1)


def test_a_line_is_where_it_should_be_and_nowhere_else():
    sheet = draw(Line(np.array([[5.0, 15.0], [35.0, 15.0]]), "#d55e00", 2))
    inked = np.argwhere((sheet < 250).any(axis=2))
    assert inked[:, 0].min() >= 13
    assert inked[:, 0].max() <= 16
    assert inked[:, 1].min() >= 3
    assert inked[:, 1].max() <= 36


@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_what_lies_outside_of_the_sheet_is_left_out(far):
    points = np.array([[far, far], [far + 3, far], [far, far + 3]])
    items = [Line(points, "#000000"), Shape(points, "#000000"), Text(far, far, "x", "#000000")]
    assert (draw(*items) == 255).all()


def test_every_letter_is_five_by_seven_and_no_two_are_the_same():
    letters = {letter: dots for letter, dots in glyphs().items() if letter not in " −–"}
    assert {dots.shape for dots in letters.values()} == {(HEIGHT, WIDTH)}
    assert len({dots.tobytes() for dots in letters.values()}) == len(letters)
    assert set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:/-+=%()_·∞…") <= set(letters)


def test_a_text_is_written_letter_by_letter():
    dots = write("a1☃")
    np.testing.assert_array_equal(dots[:, :WIDTH], glyphs()["A"])
    np.testing.assert_array_equal(dots[:, PITCH : PITCH + WIDTH], glyphs()["1"])
    assert dots[:, 2 * PITCH :].sum() == 2 * WIDTH + 2 * (HEIGHT - 2), "a box where there is no letter"


def test_texts_stand_on_their_line_and_at_their_anchor():
    for anchor, x in (("start", 4), ("end", 36), ("middle", 20)):
        inked = np.argwhere((draw(Text(x, 20, "HH", "#000000", 11, anchor)) < 128).all(axis=2))
        left, right = inked[:, 1].min(), inked[:, 1].max() + 1
        assert inked[:, 0].max() + 1 == 20
        assert abs({"start": left, "end": right, "middle": (left + right) / 2}[anchor] - x) <= 1
