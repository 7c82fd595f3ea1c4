"""Why a step was compiled again: what changed in its arguments since it was first compiled."""

from __future__ import annotations

from typing import Any

from toolshed.errors import BatchError
from toolshed.paths import describe, flatten

_SHOWN = 6


class Signature:
    """Paths, shapes and dtypes of all arguments of a step."""

    def __init__(self, **arguments: Any):
        self.batch = {path: describe(leaf) for path, leaf in flatten(arguments.pop("batch")).items()}
        self.rest = {path: describe(leaf) for path, leaf in flatten(arguments).items()}

    def same_as(self, first: Signature) -> bool:
        """True if every argument has the shape and dtype of the first time."""
        return self.batch == first.batch and self.rest == first.rest

    def check_batch_structure(self, first: Signature) -> None:
        """Raises `BatchError` if the batch has other entries than the first one had."""
        gone = [path for path in first.batch if path not in self.batch]
        new = [path for path in self.batch if path not in first.batch]
        if gone or new:
            parts = [f"lost {', '.join(gone)}"] if gone else []
            parts += [f"gained {', '.join(new)}"] if new else []
            raise BatchError(
                f"The batch changed its structure: it {' and '.join(parts)}. The first one had"
                f" {', '.join(f'{path} {kind}' for path, kind in first.batch.items())}. Give every batch"
                " the same entries, or build another step for the other kind."
            )

    def changes(self, first: Signature) -> str:
        """One line for each argument that differs from the first time, or what else it can be."""
        old, new = ({f"batch/{k}": v for k, v in s.batch.items()} | s.rest for s in (first, self))
        lines = [
            f"{path}: {old.get(path, 'absent')} → {new.get(path, 'absent')}"
            for path in [*new, *(path for path in old if path not in new)]
            if old.get(path) != new.get(path)
        ]
        if not lines:
            return "no shape or dtype changed, so a weak type, a sharding or a jax setting did"
        return "; ".join(lines[:_SHOWN]) + (
            f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        )
