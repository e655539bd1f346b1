"""Commands about trust: compare (is one config faster?), selftest (how noisy is this machine?)."""

import json
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.options import (
    Batch,
    DeviceName,
    JsonObject,
    PipelineName,
    SameDevice,
    Size,
    Steps,
    Timeout,
    Weights,
    at_least_one,
    read_weights,
)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="An exported config.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same pipeline and workload.")],
    rounds: Annotated[int, typer.Option(min=2, help="Measure each config at least this often, interleaved.")] = 3,
    timeout: Timeout = "30m",
    device: SameDevice = None,
    as_json: JsonObject = False,
) -> None:
    """Measure whether the second config is faster than the first: interleaved, each time in a fresh process."""
    from autotune.goal import read_seconds
    from autotune.report.terminal.theme import plain_console, show_heading, show_steps
    from autotune.report.terminal.trust import comparison_data, comparison_steps, comparison_words, round_line
    from autotune.tuning.compare import compare as measure

    def listen(number: int, which: Path) -> None:
        if not as_json:
            print(round_line(number, str(which)), flush=True)

    if not as_json:
        show_heading(plain_console(), "compare", f"{first} and {second}")
    result = measure(first, second, rounds=rounds, timeout_s=read_seconds(timeout), device=device, listen=listen)
    if as_json:
        print(json.dumps(comparison_data(result)))
        return
    print(comparison_words(result))
    show_steps(plain_console(), comparison_steps(result))


@app.command()
def selftest(
    pipeline: PipelineName = "demo",
    pairs: Annotated[int, typer.Option(help="Pairs of fresh processes.")] = 20,
    steps: Steps = None,
    size: Size = None,
    batch: Batch = 1,
    weights: Weights = "pretrained",
    timeout: Timeout = "30m",
    device: DeviceName = None,
    as_json: JsonObject = False,
) -> None:
    """Measure the baseline against itself, to see how noisy this machine is today (an A/A test)."""
    from autotune.goal import read_seconds
    from autotune.report.terminal.theme import plain_console, show_heading, show_steps
    from autotune.report.terminal.trust import pair_line, selftest_data, selftest_steps, selftest_words
    from autotune.tuning.selftest import selftest as measure
    from autotune.workload import read_size

    def listen(number: int, first_s: float, second_s: float) -> None:
        if not as_json:
            print(pair_line(number, pairs, first_s, second_s), flush=True)

    at_least_one({"--steps": steps, "--batch": batch})
    pixels, seconds, kind = read_size(size) if size else None, read_seconds(timeout), read_weights(weights)
    if not as_json:
        show_heading(plain_console(), "selftest", f"{pipeline}, the baseline against itself")
    result = measure(
        pipeline,
        pairs=pairs,
        steps=steps,
        size=pixels,
        batch=batch,
        weights=kind,
        device=device,
        timeout_s=seconds,
        listen=listen,
    )
    if as_json:
        print(json.dumps(selftest_data(result)))
        return
    print(selftest_words(result))
    show_steps(plain_console(), selftest_steps(pipeline))
