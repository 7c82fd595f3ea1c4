"""How programs are compiled in the tests: quickly, but for those in ``tests/optimized``.

Compiling is most of what the tests do, and most of compiling is making programs fast. What is claimed of
bits, or of what is in a compiled program, is claimed of fast ones, as everyone has them. The others hold
for those as well: ``TOOLSHED_OPTIMIZED=1 pytest`` runs all tests so, in three times the time.
"""

from __future__ import annotations

import os

OPTIMIZED = "TOOLSHED_OPTIMIZED"
"""Set in the environment of tests that are to compile as everyone's programs do."""
QUICKLY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)


def compile_quickly() -> None:
    """Sets XLA's flags for this process and those that it starts; XLA reads them once, at its start."""
    os.environ["XLA_FLAGS"] = f"{QUICKLY} {everyones_environment().get('XLA_FLAGS', '')}"


def everyones_environment(**changes: str) -> dict[str, str]:
    """The environment, with changes, for a process that compiles as everyone's do."""
    flags = os.environ.get("XLA_FLAGS", "").replace(QUICKLY, "").strip()
    rest = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return {**rest, **({"XLA_FLAGS": flags} if flags else {}), **changes}
