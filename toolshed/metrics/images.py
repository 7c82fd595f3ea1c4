"""How near images are to the images that they should be."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from toolshed.errors import ToolshedError
from toolshed.metrics import sums
from toolshed.metrics.metric import AUTO, Averaged, array, averaged, check_same_shape, counted
from toolshed.paths import describe

_SIGMA, _RADIUS = 1.5, 5  # the published window: 11 pixels wide
_K1, _K2 = 0.01, 0.03


@dataclasses.dataclass(frozen=True)
class ImageMean(Averaged):
    """What the means over images share.

    Attributes:
      predictions: a Context path of images, float[batch, ...].
      targets: a Context path of images, in the same shape.
      mask: which images count, bool[batch]; see `toolshed.metrics.Mean`.
      data_range: from the lowest to the highest value that a pixel can have.
    """

    predictions: str = "preds"
    targets: str = "batch/image"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    data_range: float = 1.0

    def _images(self, context: Any) -> tuple[jax.Array, jax.Array]:
        """Predictions and targets as float32."""
        predictions, targets = array(context, self.predictions), array(context, self.targets)
        check_same_shape(predictions, self.predictions, targets, self.targets)
        if targets.ndim < 2:
            raise ToolshedError(f"{self.targets} is {describe(targets)}; expected images [batch, ...].")
        return predictions.astype(jnp.float32), targets.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class PSNR(ImageMean):
    """The mean over images of the peak signal-to-noise ratio, in dB: ``10 log10(range² / MSE)``.

    Equal images have a ratio of infinity, and so has then the mean. Attributes as in `ImageMean`; the mask
    may also be of pixels, with the first axes of the targets.
    """

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        predictions, targets = self._images(context)
        mask = counted(context, self.mask, self.targets, targets).reshape(len(targets), -1)
        squares = ((predictions - targets) ** 2).reshape(len(targets), -1)
        total = sums.value(sums.total(jnp.where(mask, squares, 0), axis=1))
        mse = sums.ratio(total, mask.sum(1))
        return averaged(10 * jnp.log10(self.data_range**2 / mse), mask.any(1))


@dataclasses.dataclass(frozen=True)
class SSIM(ImageMean):
    """The mean over images of their structural similarity, 1 for equal images.

    Local means, variances and covariance are weighted by a Gaussian of 1.5 pixels in a window of 11 x 11,
    taken where the window lies inside the image; channels are averaged. As scikit-image has it with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``. Attributes as in `ImageMean`, of
    images float[batch, height, width] or with channels behind.

    References:
      Z. Wang, A. Bovik, H. Sheikh and E. Simoncelli, "Image quality assessment: from error visibility to
      structural similarity", 2004.
    """

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        predictions, targets = self._images(context)
        if targets.ndim not in (3, 4) or min(targets.shape[1:3]) <= 2 * _RADIUS:
            raise ToolshedError(
                f"{self.targets} is {describe(targets)}; expected images [batch, height, width] or [batch,"
                f" height, width, channels] of at least {2 * _RADIUS + 1} x {2 * _RADIUS + 1} pixels."
            )
        mask = counted(context, self.mask, self.targets, targets, axes=1)
        similarity = _similarity(predictions, targets, self.data_range)
        pixels = similarity[0].size
        return averaged(sums.value(sums.total(similarity.reshape(len(targets), -1), axis=1)) / pixels, mask)


def _similarity(x: Any, y: Any, data_range: float) -> Any:
    """The similarity around each pixel, [batch, height - 10, width - 10, ...]."""
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_x, mean_y = _smooth(x), _smooth(y)
    # Variances around a value near the local means: E[x²] - E[x]² alone would cancel.
    center = x.mean((1, 2), keepdims=True) / 2 + y.mean((1, 2), keepdims=True) / 2
    near_x, near_y = x - center, y - center
    local_x, local_y = mean_x - center, mean_y - center
    variances = _smooth(near_x**2) - local_x**2 + _smooth(near_y**2) - local_y**2
    covariance = _smooth(near_x * near_y) - local_x * local_y
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return top / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))


def _smooth(images: Any) -> Any:
    """Gaussian means over the windows inside the images, along axes 1 and 2."""
    rows, columns = _window(images.shape[1]), _window(images.shape[2])
    exact = jax.lax.Precision.HIGHEST
    images = jnp.einsum("ih,bh...->bi...", rows, images, precision=exact)
    return jnp.einsum("jw,biw...->bij...", columns, images, precision=exact)


def _window(size: int) -> np.ndarray:
    """The window's weights at each place inside ``size`` pixels, float32[size - 10, size]."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    rows = size - 2 * _RADIUS
    window = np.zeros((rows, size), np.float32)
    for row in range(rows):
        window[row, row : row + 2 * _RADIUS + 1] = weights
    return window
