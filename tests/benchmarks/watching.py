"""What it costs to watch a training: time per step, watched and not, in a real notebook kernel.

    python tests/benchmarks/watching.py [--models A B C] [--rounds 15] [--twins 3] [--json FILE]

The contenders run in an ipykernel that this script starts, so that what a dashboard or a bar sends is
serialised and sent as it is to a browser. ``run, watched`` has all that a run does by default: history,
norms of gradients and updates, metrics, the check for NaN, snapshots for going back, and a
dashboard that is asked for every update it is willing to give. Beside it are what people use otherwise:
tqdm's bar for notebooks with the loss after it, livelossplot, which draws anew each time, and Keras' own
bar. All but Keras train with toolshed's bare step, which is what the ratios are of; Keras' ratio is of
its own `fit` without a bar. A browser that draws takes time, too, on another core.

How it is measured: see `step_overhead`. What a run costs once is taken off.
"""

from __future__ import annotations

import argparse
import queue
import statistics
import sys
from pathlib import Path
from typing import Any

ROUNDS = 15
BARE, FIT = "bare step", "Trainer.fit"
KERAS = "Keras, no bar"


def contenders() -> dict[str, Any]:
    """The ways to train, by name; called in the kernel."""
    import contenders as ways
    import jax
    import numpy as np
    import peer_contenders

    import toolshed
    from toolshed.live.dashboard import Dashboard

    def run_of(task: Any, watched: bool) -> Any:
        base = ways._toolshed(task)
        mean = toolshed.metrics.Mean("loss_total")
        metrics = toolshed.metrics.collection(mean_loss=mean) if watched else None
        trainer = toolshed.Trainer(base.model, task.optimizer, base.loss_fn, metrics=metrics)
        state = trainer.make_state(base.model)
        data = [task.batch] * 1000

        def ready(steps: int) -> Any:
            options = {} if watched else {"norms_every": 0, "check_finite": False}
            run = toolshed.Run(trainer, state, data, name=task.name, **options)
            board = Dashboard(run) if watched else None
            if board is not None:
                look = {"kind": "look", "view": "benchmark", "visible": True, "version": -1}
                board._hear(board, look, [])

            def go() -> Any:
                run.train(steps, wait=False)
                run.wait()
                if len(run.history.series("train/loss").values) != steps:
                    raise AssertionError("The run did not record every loss.")
                if board is not None:
                    board.close()
                return run.call(lambda state: jax.tree.map(np.asarray, state.params))

            return go

        return ways.Contender(ready, base.loss, once=True)

    def each_step(task: Any, start: Any) -> Any:
        base = ways._toolshed(task)
        step = toolshed.build_train_step(base.loss_fn, fields=("loss_total",), donate=True)

        def ready(steps: int) -> Any:
            first = base.fresh_state()

            def go() -> Any:
                state = first
                numbers, show, end = start(steps)
                for _ in numbers:
                    state, context = step(state, task.batch)
                    show(context.loss_total)
                end()
                return state.params

            return go

        return ways.Contender(ready, base.loss)

    def tqdm_bar(steps: int) -> Any:
        import tqdm.notebook

        bar = tqdm.notebook.tqdm(range(steps))
        return bar, lambda loss: bar.set_postfix(loss=float(loss)), bar.close

    def livelossplot_figure(steps: int) -> Any:
        import livelossplot

        plot = livelossplot.PlotLosses()

        def show(loss: Any) -> None:
            plot.update({"loss": float(loss)})
            plot.send()

        return range(steps), show, lambda: None

    return {
        BARE: ways.toolshed_step,
        FIT: ways.toolshed_fit,
        "run, nothing on": lambda task: run_of(task, watched=False),
        "run, watched": lambda task: run_of(task, watched=True),
        "tqdm.notebook, loss in each step": lambda task: each_step(task, tqdm_bar),
        "livelossplot, drawn in each step": lambda task: each_step(task, livelossplot_figure),
        KERAS: peer_contenders.keras_fit,
        "Keras, its bar": lambda task: peer_contenders.keras_fit(task, verbose=1),
    }


def in_kernel(letters: list[str], rounds: int, only: list[str] | None, twins: int = 1) -> dict[str, Any]:
    """Measures, and prints tables; called in the kernel."""
    import gc

    import step_overhead as harness
    from models import TASKS

    known, results = contenders(), {}
    for letter in letters:
        task = TASKS[letter]()
        built: dict[str, list[Any]] = {}
        for name, build in [item for _ in range(twins) for item in known.items()]:
            if only and name not in (*only, BARE):
                continue
            contender = build(task)
            if contender is not None:
                contender.ready(8)()
                built.setdefault(name, []).append(contender)
        expected = {name: min(harness.step_time(c[0], 4)[0] for _ in range(2)) for name, c in built.items()}
        gc.collect()
        gc.freeze()
        full = harness.units(max(15 * harness.RUN / expected[BARE], harness.LEAST_STEPS), 1)
        steps = {name: min(full, harness.units(2 / max(t, 1e-6), 1)) for name, t in expected.items()}
        times: dict[str, list[float]] = {name: [] for name in built}
        order = list(built)
        for turn in range(rounds):
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                times[name].append(harness.step_time(built[name][turn % twins], steps[name])[0])
        results[letter] = times
        table(task.about, letter, times, steps)
    return results


def table(about: str, letter: str, times: dict[str, list[float]], steps: dict[str, int]) -> None:
    """One model's timings as a Markdown table."""
    print(f"### {letter}: {about}\n")
    print("| contender | µs per step | times its base | range | steps in a run |")
    print("|---|---:|---:|---:|---:|")
    for name, seconds in times.items():
        base = times[KERAS if name.startswith("Keras") else BARE]
        ratios = [a / b for a, b in zip(seconds, base, strict=True)]
        print(
            f"| {name} | {statistics.median(seconds) * 1e6:,.1f} | {statistics.median(ratios):.2f}"
            f" | {min(ratios):.2f} to {max(ratios):.2f} | {steps[name]:,} |"
        )
    print(flush=True)


def main() -> None:
    """Starts a kernel and measures in it."""
    from jupyter_client.manager import start_new_kernel

    parser = argparse.ArgumentParser(description="Times watched training against the bare step.")
    parser.add_argument("--models", nargs="*", default=["A", "B", "C"], metavar="LETTER")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at least 7 for numbers to be quoted")
    parser.add_argument("--contenders", nargs="*", metavar="NAME")
    parser.add_argument("--twins", type=int, default=3, help="times that each is compiled")
    parser.add_argument("--json", metavar="FILE", help="also write all single times to this file")
    options = parser.parse_args()
    manager, client = start_new_kernel()
    folder = str(Path(__file__).parent)
    code = (
        f"import sys; sys.path.insert(0, {folder!r}); sys.path.insert(0, {str(Path.cwd())!r})\n"
        "import watching, json\n"
        f"asked = {(options.models, options.rounds, options.contenders, options.twins)!r}\n"
        "results = watching.in_kernel(*asked)\n"
        f"file = {options.json!r}\n"
        "if file: open(file, 'w').write(json.dumps(results))\n"
    )
    try:
        reply = client.execute_interactive(code, output_hook=_show, timeout=None)
        if reply["content"]["status"] != "ok":
            sys.exit(1)
    except queue.Empty:
        sys.exit("The kernel did not answer.")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _show(message: dict[str, Any]) -> None:
    """Prints the tables and errors of the kernel; bars and pictures are left out."""
    content = message["content"]
    if message["msg_type"] == "stream" and content["name"] == "stdout" and "|" in content["text"]:
        lines = [line for line in content["text"].splitlines() if line.startswith(("|", "#"))]
        print("\n".join(lines), flush=True)
    elif message["msg_type"] == "error":
        print("\n".join(content["traceback"]), file=sys.stderr)


if __name__ == "__main__":
    main()
