"""The long form: ``python -m tests.crash --kills 500``. Prints a line for each way of saving."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.crash.harness import Killer, Zygote
from tests.crash.worker import MODES


def main() -> None:
    """Kills as many processes as asked for, spread over all ways of saving."""
    parser = argparse.ArgumentParser(description="Kills saving processes and looks at what they leave.")
    parser.add_argument("--kills", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of chance (default: %(default)s)")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
