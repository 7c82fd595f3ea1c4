"""What is wrong with a checkpoint, found by reading all of its files."""

from __future__ import annotations

from typing import NamedTuple

from toolshed.checkpoints import manifest as manifests
from toolshed.checkpoints.manifest import Manifest
from toolshed.errors import CheckpointDamagedError


class Damage(NamedTuple):
    """What is wrong with something in a repository.

    Attributes:
      name: the name of its directory.
      step: the step that it is of; None for what is no checkpoint.
      problem: what is wrong, in words.
    """

    name: str
    step: int | None
    problem: str


def error_of(found: Manifest) -> CheckpointDamagedError | None:
    """What is wrong with the files of a checkpoint; None if they are as they were written."""
    try:
        manifests.check_content(found)
        manifests.read_structure(found)
    except CheckpointDamagedError as error:
        return error
    return None
