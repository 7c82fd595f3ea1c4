"""Checkpoints: saved states, found by step, tag or metric, whole or not there at all."""

from toolshed.checkpoints.compare import Comparison as Comparison
from toolshed.checkpoints.damage import Damage as Damage
from toolshed.checkpoints.loading import Restored as Restored
from toolshed.checkpoints.manifest import Manifest as Manifest
from toolshed.checkpoints.repository import Repository as Repository
from toolshed.checkpoints.retention import Best as Best
from toolshed.checkpoints.saving import Saving as Saving
from toolshed.checkpoints.structure import Kind as Kind
from toolshed.checkpoints.structure import Leaf as Leaf
