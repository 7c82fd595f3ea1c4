"""Conditions that end a training: ``run.train(until=toolshed.until.metric("eval/accuracy", above=0.97))``.

A condition is a function of the number of steps done and the newest values by name. It is asked at the
end of each window (`toolshed.Run`), when the metrics are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from toolshed.errors import RunError

Condition = Callable[[int, Mapping[str, float]], bool]


def metric(name: str, *, above: float | None = None, below: float | None = None) -> Condition:
    """True once a value is above or below a bound. A NaN is neither.

    Args:
      name: of the value: ``eval/accuracy``.
      above: ends when the value is greater.
      below: ends when the value is less.

    Raises:
      RunError: not exactly one bound is given; when asked, there is no value of that name.
    """
    if (above is None) == (below is None):
        raise RunError(f"until.metric({name!r}) needs either above=… or below=….")
    upper = math.inf if above is None else above
    lower = -math.inf if below is None else below

    def is_met(step: int, values: Mapping[str, float]) -> bool:
        del step
        if name not in values:
            raise RunError(f"There is no value {name!r} to end training by; there are {', '.join(values)}.")
        return values[name] > upper or values[name] < lower

    is_met.__name__ = (
        f"{name} {'above' if above is not None else 'below'} {above if below is None else below}"
    )
    return is_met
