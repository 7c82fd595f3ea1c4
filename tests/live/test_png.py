"""Pixels as PNG, read by another implementation."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from toolshed.live.png import encode


def test_pixels_come_out_as_they_went_in():
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 3)).astype(np.uint8)
    image = Image.open(io.BytesIO(encode(pixels)))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)
