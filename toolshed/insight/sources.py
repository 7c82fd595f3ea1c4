"""What people hand over when they mean a loss function: the function, a step, a trainer, or its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolshed import paths
from toolshed.errors import ToolshedError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.training import Trainer, TrainStep


def step_of(source: Any) -> TrainStep | None:
    """The training step that is meant, if one is: a step, or the one that a trainer makes by hand."""
    owner = getattr(source, "__self__", None)
    if isinstance(owner, Trainer) and getattr(source, "__name__", "") == "step":
        source = owner
    if isinstance(source, Trainer):
        return source._step_by_hand
    return source if isinstance(source, TrainStep) else None


def loss_and_strategy(source: Any) -> tuple[Callable[..., Any], GradientStrategy]:
    """The loss function of a step or a trainer and the way its gradients are found; or one by itself.

    Raises:
      ToolshedError: there is none.
    """
    step = step_of(source)
    if step is not None:
        return step._loss_fn, step._gradient_strategy
    if not callable(source):
        raise ToolshedError(
            f"Expected a loss function, a TrainStep or a Trainer, got {paths.describe(source)}."
        )
    return source, backprop
