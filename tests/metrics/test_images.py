"""PSNR and SSIM against their formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tests.metrics.merging import Arrays, check, for_any_seed, merged_each, random_batches, value_of
from toolshed.errors import ToolshedError
from toolshed.metrics import PSNR, SSIM

SIZE = 14


def images(rng: np.random.Generator, n: int) -> Arrays:
    """Smooth images, some nearly flat, and noisy copies."""
    spread = rng.choice([0.02, 0.3])
    clean = 0.5 + spread * gaussian_filter(rng.normal(size=(n, SIZE, SIZE)), (0, 1.5, 1.5))
    return {
        "preds": (clean + 0.05 * rng.normal(size=clean.shape)).astype(np.float32),
        "image": clean.astype(np.float32),
    }


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    return 10 * np.log10(1 / ((x - y) ** 2).mean())


def ssim(x: np.ndarray, y: np.ndarray, data_range: float = 1.0) -> float:
    """Equation 13 of Wang et al. with K1 = .01, K2 = .03; weights by scipy's Gaussian filter."""

    def smooth(image: np.ndarray) -> np.ndarray:
        # Truncated at 3.5 deviations the window is 11 pixels wide; 5 at each edge reach outside.
        return gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mx, my = smooth(x), smooth(y)
    vx, vy, vxy = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    return (((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


@for_any_seed
def test_similarities_of_merged_batches_are_the_formulas_over_all_at_once(seed):
    batches, whole = random_batches(seed, images)
    pairs = list(zip(whole["preds"], whole["image"], strict=True))
    ratio, similarity = merged_each([PSNR(), SSIM()], batches, seed)
    check(ratio, np.mean([psnr(*pair) for pair in pairs]) if pairs else np.nan)
    check(similarity, np.mean([ssim(*pair) for pair in pairs]) if pairs else np.nan)


def test_equal_images():
    image = np.random.default_rng(0).random((1, 12, 12)).astype(np.float32)
    assert value_of(SSIM(), preds=image, image=image) == pytest.approx(1, abs=1e-6)
    assert value_of(PSNR(), preds=image, image=image) == np.inf


def test_an_error_of_a_tenth_of_the_range_is_20_db():
    image = np.zeros((2, 3, 3), np.float32)
    assert value_of(PSNR(), preds=image + 0.1, image=image) == pytest.approx(20)
    assert value_of(PSNR(data_range=255.0), preds=image + 25.5, image=image) == pytest.approx(20)


def test_channels_are_averaged_and_the_range_is_a_scale():
    rng = np.random.default_rng(1)
    x, y = rng.random((2, 1, 13, 12, 3))
    expected = np.mean([ssim(x[0, ..., c], y[0, ..., c]) for c in range(3)])
    found = value_of(SSIM(data_range=255.0), preds=np.float32(255 * x), image=np.float32(255 * y))
    assert found == pytest.approx(expected, abs=1e-6)


def test_pixels_can_be_masked_for_psnr():
    image, mask = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), bool)
    wrong = image.copy()
    wrong[:, 0, 0], wrong[:, 1, 1] = 0.1, np.nan
    mask[0, 0, 0] = True
    assert value_of(PSNR(), preds=wrong, image=image, mask=mask) == pytest.approx(20)


def test_images_that_are_too_small_or_masks_by_pixel_are_an_error():
    small = np.zeros((1, 10, 12), np.float32)
    with pytest.raises(
        ToolshedError, match=r"^batch/image is float32\[1,10,12\]; expected images .* of at least 11 x 11"
    ):
        value_of(SSIM(), preds=small, image=small)
    with pytest.raises(
        ToolshedError, match=r"^batch/image is float32\[3\]; expected images \[batch, \.\.\.\]"
    ):
        value_of(PSNR(), preds=np.zeros(3), image=np.zeros(3))
    image = np.zeros((1, 12, 12), np.float32)
    with pytest.raises(ToolshedError, match=r"a mask with at most 1 of the first axes"):
        value_of(SSIM(), preds=image, image=image, mask=np.ones((1, 12), bool))
