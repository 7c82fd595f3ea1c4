"""What a training step costs beside its arithmetic: microseconds per step, and how many times the limit.

    python tests/benchmarks/step_overhead.py [--models A B C D] [--contenders NAME ...] [--rounds 31]
                                             [--twins 3] [--imports] [--json FILE]

The limit is a hand-written jax loop on a dict of arrays, compiled ahead of time and donated, that fetches
nothing. On the penzai model that toolshed trains it makes the same arithmetic, so what lies between the
two is overhead. Other libraries train models of equal layers and sizes (`peer_models`): comparable, not
equal. What each contender does is in `contenders` and `peer_contenders`, in a few lines each.

How it is measured, because such numbers are easy to get wrong:
- All contenders take turns in one process, in an order that moves on each round. A ratio is that of two
  times from the same round; the table shows the median over the rounds, and the range. Many short rounds
  say more than few long ones: a machine that others use, too, changes its speed from second to second.
- Each is compiled and warmed up first. A measured run takes about 0.1 s of the limit's time, starts from
  fresh values after a garbage collection, and ends when the parameters are there.
- The number of steps is the same for all, but for those that would take more than a second, and for
  `fit` (see below), whose runs take that second.
- Batches are on the device. Keras takes numpy arrays, since its `fit` does.
- What a call of `Trainer.fit` or of Keras' `fit` costs once (a copy of the state, say) is taken off, as
  what a long and a short run have in common, and shown in a line of its own.
- The loss after 32 steps is shown, to see that all of them train.
- Each contender is built and compiled several times, and these twins take turns, one a round: two twins
  of one program can differ by ten percent on D and C, for as long as the process lives, and so a ratio of
  single ones says more about their luck than about the contenders. Use a multiple of ``--twins`` rounds.
- How far to trust a ratio, the row ``jit`` tells: it is the limit's program without the compilation ahead.

Needs ``pip install "jax-toolshed[lab,bench]"``; what is missing is left out. A quiet machine helps more
than more rounds. All four models take about twenty minutes on two cores, most of it compiling C and D.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
from contenders import LIMIT, OURS, STEPS_PER_CALL, TOOLSHED, TOOLSHED_32, TOOLSHED_FIT, Contender
from models import TASKS, Task
from peer_contenders import PEERS

CONTENDERS = OURS | PEERS
RUN = 0.1  # seconds that a measured run of the limit takes, about
LEAST_STEPS = 32  # in a run of the limit: Python collects its garbage now and then, not in each step
LONGEST_RUN = 1.0  # seconds; a contender that needs more makes fewer steps, to no less than 4
WARM_STEPS = 32
OPTIONAL = {"flax", "equinox", "keras"}
IMPORTS = "import jax, optax, penzai; from penzai import pz"


class Timing(NamedTuple):
    """What one contender needed in each round.

    Attributes:
      steps: in a run.
      loss: after `WARM_STEPS` steps.
      seconds: per step, by round.
      once: seconds that a run costs beside its steps, by round; 0 where it costs nothing.
    """

    steps: int
    loss: float
    seconds: list[float]
    once: list[float]


Timings = dict[str, Timing]


def run_time(contender: Contender, steps: int) -> float:
    """Seconds for one run of ``steps`` steps from fresh values."""
    run = contender.ready(steps)
    gc.collect()
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def step_time(contender: Contender, steps: int) -> tuple[float, float]:
    """Seconds per step over ``steps`` steps, and seconds that a run costs beside them."""
    if not contender.once:
        return run_time(contender, steps) / steps, 0.0
    short = max(steps // 2, 1)
    begun = run_time(contender, short)
    seconds = (run_time(contender, short + steps) - begun) / steps
    return seconds, begun - short * seconds


def expected_time(contender: Contender, unit: int) -> float:
    """Seconds per step, roughly; warms the contender up at the same time. Tries multiples of ``unit``."""
    steps = unit
    while step_time(contender, steps)[0] * steps < RUN / 3:
        steps *= 2
    return min(step_time(contender, steps)[0] for _ in range(2))


def build(task: Task, names: Iterable[str], twins: int) -> dict[str, tuple[list[Contender], float]]:
    """The contenders that this task and this machine have, some of each, with the loss after a few steps."""
    built: dict[str, tuple[list[Contender], float]] = {}
    for name in [name for _ in range(twins) for name in names]:
        start = time.perf_counter()
        try:
            contender = CONTENDERS[name](task)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            print(f'Left out: {name}; {error.name} is not installed: pip install "jax-toolshed[bench]"\n')
            continue
        if contender is not None:
            loss = float(contender.loss(contender.ready(WARM_STEPS)()))
            built.setdefault(name, ([], loss))[0].append(contender)
            progress(f"{task.name}: {name} compiled in {time.perf_counter() - start:.1f} s, loss {loss:.4f}")
    return built


def measure(task: Task, names: Sequence[str], rounds: int, twins: int = 1) -> Timings:
    """Times the contenders in turns."""
    built = build(task, names, twins)
    unit = STEPS_PER_CALL if task.stacked else 1
    expected = {
        name: max(expected_time(twin, unit) for twin in several) for name, (several, _) in built.items()
    }
    gc.collect()
    gc.freeze()  # what was left behind by compiling all of them is not for one of them to sweep
    full = units(max(RUN / expected[LIMIT], LEAST_STEPS), unit)
    timings = {}
    for name, (several, loss) in built.items():
        longest = units(LONGEST_RUN / expected[name], unit)
        timings[name] = Timing(longest if several[0].once else min(full, longest), loss, [], [])
    order = list(timings)
    for turn in range(rounds):
        progress(f"{task.name}: round {turn + 1} of {rounds}")
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            seconds, once = step_time(built[name][0][turn % twins], timings[name].steps)
            timings[name].seconds.append(seconds)
            timings[name].once.append(once)
    return timings


def units(steps: float, unit: int) -> int:
    """A number of steps as a multiple of ``unit``, and at least 4."""
    return max(round(steps / unit), 4 // unit, 1) * unit


def ratios(timings: Timings, name: str, base: str) -> list[float]:
    """How many times ``base`` a contender needs per step, by round."""
    return [a / b for a, b in zip(timings[name].seconds, timings[base].seconds, strict=True)]


def print_table(task: Task, timings: Timings) -> None:
    """The timings of one task as a Markdown table, with what runs cost once below it."""
    print(f"### {task.name}: {task.about}\n")
    print("| contender | µs per step | times the limit | range | steps in a run | loss after 32 |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, timing in timings.items():
        microseconds = statistics.median(timing.seconds) * 1e6
        times = ratios(timings, name, LIMIT)
        print(
            f"| {name} | {microseconds:,.1f} | {statistics.median(times):.2f}"
            f" | {min(times):.2f} to {max(times):.2f} | {timing.steps:,} | {timing.loss:.4f} |"
        )
    print()
    for name, timing in timings.items():
        if any(timing.once):
            print(f"A run of {name} costs {statistics.median(timing.once) * 1e3:.1f} ms beside its steps.")
    print(flush=True)


def import_times(rounds: int) -> tuple[list[float], list[float]]:
    """Seconds to import what toolshed is built on, and the same with toolshed; fresh processes in turns."""
    times: dict[str, list[float]] = {IMPORTS: [], f"{IMPORTS}; import toolshed": []}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(rounds + 1):  # the first one only fills the file cache, and leaves bytecode as pip does
        progress(f"imports: round {turn} of {rounds}")
        for statements in sorted(times, reverse=bool(turn % 2)):
            code = f"import time; t = time.perf_counter(); {statements}; print(time.perf_counter() - t)"
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            if turn:
                times[statements].append(float(done.stdout))
    without, with_toolshed = times.values()
    return without, with_toolshed


def import_difference(imports: tuple[list[float], list[float]]) -> float:
    """Seconds that toolshed adds to the import of what it is built on."""
    without, with_toolshed = imports
    return statistics.median(with_toolshed) - statistics.median(without)


def print_imports(imports: tuple[list[float], list[float]]) -> None:
    """The import times in two lines."""
    without, with_toolshed = (statistics.median(times) for times in imports)
    print("### Imports\n")
    print(f"`{IMPORTS}` takes {without:.2f} s, with toolshed {with_toolshed:.2f} s:", end=" ")
    print(f"{import_difference(imports):+.3f} s.\n", flush=True)


def print_targets(results: dict[str, Timings], imports: tuple[list[float], list[float]] | None) -> None:
    """Which targets the measurements meet. For information: noise alone can miss one."""
    print("### Targets\n")
    for letter, timings in results.items():
        bound = 1.10 if letter == "A" else 1.05
        print_target(f"{letter}: {TOOLSHED} beside the limit", timings, TOOLSHED, LIMIT, bound)
        if letter == "A":
            print_target(f"A: {TOOLSHED_32} beside the limit", timings, TOOLSHED_32, LIMIT, 0.35)
        print_target(f"{letter}: {TOOLSHED_FIT} beside {TOOLSHED}", timings, TOOLSHED_FIT, TOOLSHED, 1.03)
        peers = [name for name in PEERS if name in timings]
        for way in (TOOLSHED, TOOLSHED_32, TOOLSHED_FIT):
            if peers and way in timings:
                closest = max(peers, key=lambda name: statistics.median(ratios(timings, way, name)))
                what = f"{letter}: {way} beside the peer closest to it, {closest}"
                print_target(what, timings, way, closest, 1.0)
    if imports is not None:
        value = import_difference(imports)
        print(f"- {verdict(value, 0.1)}: import of toolshed: {value:+.3f} s, target at most 0.1 s")


def print_target(what: str, timings: Timings, name: str, base: str, bound: float) -> None:
    """One line, if both contenders were measured."""
    if name in timings and base in timings:
        value = statistics.median(ratios(timings, name, base))
        print(f"- {verdict(value, bound)}: {what}: {value:.3f}, target at most {bound:.2f}")


def verdict(value: float, bound: float) -> str:
    """``pass`` or ``fail``."""
    return "pass" if value <= bound else "fail"


def progress(line: str) -> None:
    """Tells who waits how far it is, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": f"{device.platform} ({device.device_kind})",
        "cores": os.cpu_count(),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Times training steps against the limit.")
    parser.add_argument("--models", nargs="*", choices=TASKS, default=list(TASKS), metavar="LETTER")
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=CONTENDERS,
        default=list(CONTENDERS),
        metavar="NAME",
        help=f"from {', '.join(CONTENDERS)}; the limit always takes part",
    )
    parser.add_argument("--rounds", type=int, default=31, help="at least 7 for numbers to be quoted")
    parser.add_argument("--twins", type=int, default=3, help="times that each is compiled")
    parser.add_argument("--imports", action="store_true", help="also measure what toolshed's import adds")
    parser.add_argument("--json", metavar="FILE", help="also write all single times to this file")
    return parser.parse_args()


def main() -> None:
    """Measures what the command line asks for and prints it."""
    options = arguments()
    names = [name for name in CONTENDERS if name == LIMIT or name in options.contenders]
    about = machine()
    print("## Training steps\n")
    print(
        ", ".join(f"{name} {value}" for name, value in about.items())
        + f"; {options.rounds} rounds, {options.twins} twins\n"
    )
    results = {}
    for letter in options.models:
        task = TASKS[letter]()
        results[letter] = measure(task, names, options.rounds, options.twins)
        print_table(task, results[letter])
    imports = import_times(options.rounds) if options.imports else None
    if imports is not None:
        print_imports(imports)
    print_targets(results, imports)
    if options.json:
        models = {letter: {n: t._asdict() for n, t in timings.items()} for letter, timings in results.items()}
        with open(options.json, "w") as file:
            json.dump({"machine": about, "models": models, "imports": imports}, file, indent=1)


if __name__ == "__main__":
    main()
