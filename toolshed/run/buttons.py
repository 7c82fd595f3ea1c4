"""Buttons: actions of a run by name, for whoever cannot wait for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from toolshed.errors import RunError
from toolshed.run.control import Control

if TYPE_CHECKING:
    from toolshed.run.run import Run


def press(run: Run, control: Control, action: str, arguments: Mapping[str, Any]) -> None:
    """Has a run do something as soon as it can; returns at once, and tells errors.

    Args:
      run: the run.
      control: of the run.
      action: its name.
      arguments: as the method of this name takes them, by name.
    """

    def later(fn: Callable[..., Any], *, at_rest: bool = True) -> Callable[[], None]:
        return lambda: control.ask_later(lambda: fn(**arguments), at_rest=at_rest)

    actions: Mapping[str, Callable[[], Any]] = {
        "train": lambda: run.train(**arguments, wait=False),
        "pause": run.pause,
        "resume": run.resume,
        "stop": run.stop,
        "step": later(run.step),
        "back": later(run.back),
        "goto": later(run.goto),
        "edit": later(run.edit, at_rest=False),
        "save": later(run.save, at_rest=False),
    }
    try:
        if action not in actions:
            raise RunError(f"A run cannot {action!r}; it can {', '.join(actions)}.")
        actions[action]()
    except Exception as error:
        control.refuse(error)
