"""Ticks of an axis: round numbers, written alike and as short as tells them apart."""

from __future__ import annotations

import math

MANTISSAS = (1.0, 2.0, 2.5, 5.0, 10.0)


def linear(low: float, high: float, number: int, *, whole: bool = False) -> list[tuple[float, str]]:
    """Round numbers between two others, with their texts.

    Args:
      low, high: the ends.
      number: how many there may be, about.
      whole: only whole numbers.

    Example:
      >>> linear(0.1, 1.0, 4)
      [(0.25, '0.25'), (0.5, '0.50'), (0.75, '0.75'), (1.0, '1.00')]
      >>> linear(0, 250_000, 4)
      [(0.0, '0'), (100000.0, '100k'), (200000.0, '200k')]
    """
    rough = max((high - low) / number, 1e-300)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in MANTISSAS if digit * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = [place * step for place in range(first, last + 1)]
    return [(at, text(at, step, max(map(abs, places)))) for at in places]


def logarithmic(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers on a logarithmic axis: 1, 2 and 5 in each decade, or decades alone where there are many.

    Example:
      >>> [text for _, text in logarithmic(0.009, 30.0)]
      ['0.01', '0.1', '1', '10']
      >>> [text for _, text in logarithmic(0.2, 0.3)]
      ['0.20', '0.22', '0.24', '0.26', '0.28', '0.30']
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / 6))
    digits = (1, 2, 5) if last - first <= 3 else (1,)
    places = [digit * 10.0**power for power in range(first, last + 1, every) for digit in digits]
    inside = [at for at in places if low <= at <= high]
    if len(inside) < 3:
        return linear(low, high, 5)
    return [(at, f"{at:.4g}".replace("e-0", "e-").replace("e+0", "e")) for at in inside]


def text(number: float, step: float, top: float) -> str:
    """A tick's text.

    Args:
      number: where the tick is.
      step: how far ticks lie apart.
      top: the largest of them, so that all are written alike.
    """
    if number == 0:
        return "0"
    if top < 0.01 or top >= 1e9:
        exponent = math.floor(math.log10(abs(number)) + 1e-9)
        digits = min(max(decimals(step) + exponent, 0), 12)
        mantissa, _, power = f"{number:.{digits}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(power)}"
    scale, unit = (1e6, "M") if top >= 1e6 else (1e3, "k") if top >= 1e4 else (1.0, "")
    return f"{number / scale:.{decimals(step / scale)}f}{unit}"


def decimals(number: float) -> int:
    """How many digits after the point a number has."""
    digits = max(-math.floor(math.log10(number) + 1e-9), 0)
    while digits < 15 and abs(number * 10**digits - round(number * 10**digits)) > 1e-6:
        digits += 1
    return digits
