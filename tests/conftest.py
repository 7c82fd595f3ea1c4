"""Checks annotations, shapes included, while the tests run.

The modules left out stand at the border: people call them, and they answer a wrong argument in words of
their own, which the tests read.
"""

import jaxtyping

jaxtyping.install_import_hook(
    [
        "toolshed.keys",
        "toolshed.paths",
        "toolshed.models",
        "toolshed.state.optimizer",
        "toolshed.gradients",
        "toolshed.insight",
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
