"""How the tests run: with annotations checked, shapes included, quickly compiled, each file in one process.

The modules whose annotations are not checked stand at the border: people call them, and they answer a wrong
argument in words of their own, which the tests read.
"""

import gc
import os
import signal
from typing import Any

import jaxtyping
import pytest

from tests.compiling import OPTIMIZED, compile_quickly

if OPTIMIZED not in os.environ:
    compile_quickly()
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
        "toolshed.insight.autopsy",
        "toolshed.insight.batching",
        "toolshed.insight.compare",
        "toolshed.insight.curvature",
        "toolshed.insight.difference",
        "toolshed.insight.events",
        "toolshed.insight.finite",
        "toolshed.insight.leaves",
        "toolshed.insight.loops",
        "toolshed.insight.measure",
        "toolshed.insight.noise",
        "toolshed.insight.operations",
        "toolshed.insight.replay",
        "toolshed.insight.source",
        "toolshed.insight.statistics",
        "toolshed.insight.structure",
        "toolshed.insight.summary",
        "toolshed.insight.tables",
        "toolshed.live.drawing",
        "toolshed.live.frames",
        "toolshed.live.glyphs",
        "toolshed.live.panels",
        "toolshed.live.raster",
        "toolshed.metrics",
        "toolshed.data.text",
        "toolshed.data.handwriting",
        "toolshed.interrupts",
        "toolshed.training.program",
        "toolshed.training.signature",
        "toolshed.training.tape",
        "toolshed.views",
    ],
    "beartype.beartype",
)

FIRST = ["tests/browser/", "tests/optimized/", "tests/notebooks/"]
"""Folders that are begun first, each as a whole on one worker, because they take longest."""


def scope_of(nodeid: str) -> str:
    """What is kept on one worker: the tests of a file share what was compiled, those of a folder servers."""
    file = nodeid.split("::")[0]
    return next((folder for folder in FIRST if file.startswith(folder)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest first, so that no worker waits for another at the end."""
    order = {folder: place for place, folder in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(scope_of(item.nodeid), len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives whole files to workers, in their order."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def ctrl_c_arrives() -> None:
    """Ctrl-C raises as in a notebook, whatever the test before has left behind.

    A shell that starts something in the background has it ignore Ctrl-C, and a notebook's kernel that does
    not start leaves a handler that does nothing.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Takes all that is loaded by now out of garbage collection, which several tests ask for."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)  # tracing makes many objects, and looking for cycles among them takes a while
