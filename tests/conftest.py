"""Checks annotations, shapes included, while the tests run.

The modules left out stand at the border: people call them, and they answer a wrong argument in words of
their own, which the tests read.
"""

import jaxtyping

jaxtyping.install_import_hook(
    [
        "toolshed.keys",
        "toolshed.paths",
        "toolshed.checkpoints.arrays",
        "toolshed.checkpoints.environment",
        "toolshed.checkpoints.layout",
        "toolshed.checkpoints.lock",
        "toolshed.checkpoints.manifest",
        "toolshed.checkpoints.restore",
        "toolshed.checkpoints.saving",
        "toolshed.checkpoints.sides",
        "toolshed.checkpoints.structure",
        "toolshed.checkpoints.table",
        "toolshed.models",
        "toolshed.state.optimizer",
        "toolshed.gradients",
        "toolshed.metrics",
        "toolshed.data.text",
        "toolshed.data.handwriting",
        "toolshed.training.interrupts",
        "toolshed.training.program",
        "toolshed.training.signature",
        "toolshed.training.tape",
        "toolshed.views",
    ],
    "beartype.beartype",
)
