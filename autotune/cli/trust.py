"""compare, selftest: is one config faster, and what are this machine's figures worth?"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.cli.app import app
from autotune.cli.options import DeviceName, PipelineName, Weights, at_least_one, read_weights
from autotune.cli.terminal import heading, show_steps


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="An exported config.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same pipeline and workload.")],
    rounds: Annotated[int, typer.Option(min=2, help="Measure both at least so often, in turn.")] = 3,
    timeout: Annotated[str, typer.Option(help="The longest that a run may take.")] = "30m",
    device: DeviceName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say whether the second config is faster than the first: measured in turn, each time in a fresh process."""
    from autotune.goal import read_seconds
    from autotune.report.terminal.trust import comparison_steps, comparison_words
    from autotune.tuning.compare import compare as measure

    def listen(number: int, which: Path) -> None:
        if not as_json:
            print(f"round {number}: {which}", flush=True)

    if not as_json:
        heading("compare", f"{first} and {second}")
    seen = measure(first, second, rounds=rounds, timeout_s=read_seconds(timeout), device=device, listen=listen)
    if as_json:
        print(json.dumps({**seen.to_json(), "verdict": seen.verdict.to_json()}))
        return
    print(comparison_words(seen))
    show_steps(comparison_steps(seen))


@app.command()
def selftest(
    pipeline: PipelineName = "demo",
    pairs: Annotated[int, typer.Option(help="Pairs of fresh processes.")] = 20,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of the workload.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures a call.")] = 1,
    weights: Weights = "pretrained",
    timeout: Annotated[str, typer.Option(help="The longest that a run may take.")] = "30m",
    device: DeviceName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure the baseline against itself, to see what this machine's figures are worth today (an A/A test)."""
    from autotune.goal import read_seconds
    from autotune.report import words
    from autotune.report.terminal.trust import selftest_steps, selftest_words
    from autotune.tuning.selftest import selftest as measure
    from autotune.workload import read_size

    def listen(number: int, first_s: float, second_s: float) -> None:
        if not as_json:
            print(f"pair {number} of {pairs}: {words.seconds(first_s)}, {words.seconds(second_s)}", flush=True)

    at_least_one({"--steps": steps, "--batch": batch})
    workload: dict[str, Any] = {"steps": steps, "size": read_size(size) if size else None, "batch": batch}
    seconds, kind = read_seconds(timeout), read_weights(weights)
    if not as_json:
        heading("selftest", f"{pipeline}, the baseline against itself")
    seen = measure(pipeline, pairs=pairs, **workload, weights=kind, device=device, timeout_s=seconds, listen=listen)
    if as_json:
        told = {"false_alarms": seen.false_alarms, "smallest_speedup": seen.smallest_speedup, "worst": seen.worst}
        print(json.dumps({**seen.to_json(), **told}))
        return
    print(selftest_words(seen))
    show_steps(selftest_steps(pipeline))
