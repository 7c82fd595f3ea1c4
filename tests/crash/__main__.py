"""The long forms. Each prints what it did.

``python -m tests.crash --kills 500`` kills saving processes, in each way of saving.
``python -m tests.crash --training 50`` kills one training that often, and compares its end with that of one
that was left alone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.crash.harness import Breaker, Killer, Zygote, moments
from tests.crash.worker import MODES


def main() -> None:
    """Kills as many processes as asked for, spread over all ways of saving."""
    parser = argparse.ArgumentParser(description="Kills saving processes and looks at what they leave.")
    parser.add_argument("--kills", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--training", type=int, default=0, metavar="KILLS", help="kill one training so often")
    parser.add_argument("--seed", type=int, default=0, help="of chance (default: %(default)s)")
    options = parser.parse_args()
    if options.training:
        kill_training(options.training, options.seed)
        return
    ways = [(mode, asynchronous) for mode in MODES for asynchronous in (False, True)]
    zygote = Zygote()
    for i, (mode, asynchronous) in enumerate(ways):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            source = random.Random(options.seed + i)
            killer = Killer(Path(folder), mode, asynchronous=asynchronous, source=source)
            for _ in range(-(-options.kills // len(ways))):
                killer.kill_once(zygote)
        how = "async" if asynchronous else "sync"
        seconds = time.monotonic() - begun
        print(f"{mode}, {how}: {killer.kills} kills, {len(killer.saved)} saved, {seconds:.0f} s", flush=True)
    zygote.close()


def kill_training(kills: int, seed: int) -> None:
    """Kills a training, and compares."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        zygote = Zygote("tests.crash.training", JAX_COMPILATION_CACHE_DIR=f"{folder}/compiled")
        steps = 20 * kills
        alone, broken = (
            Breaker(Path(folder) / "alone", steps=steps),
            Breaker(Path(folder) / "broken", steps=steps),
        )
        planned = moments(kills, steps, steps // 2, random.Random(seed))
        expected, found = alone.break_it(zygote), broken.break_it(zygote, planned)
        zygote.close()
        print(*broken.lines()[:-1], sep="\n")
        print(f"{kills} kills in {time.monotonic() - begun:.0f} s, by their places: {broken.killed()}")
    print(f"left alone {expected}, killed {found}")
    assert found == expected


if __name__ == "__main__":
    main()
