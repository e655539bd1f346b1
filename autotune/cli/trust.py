"""Commands about trust: compare (is one config faster?), selftest (how noisy is this machine?)."""

import json
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.grouped import grouped
from autotune.cli.options import (
    MOST_ROUNDS,
    Call,
    DeviceName,
    Factory,
    JsonObject,
    Model,
    Python,
    RunCode,
    SameDevice,
    Timeout,
)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="An exported config.")],
    second: Annotated[Path | None, typer.Argument(help="Another one, of the same pipeline and workload.")] = None,
    rounds: Annotated[
        int, typer.Option(min=2, max=MOST_ROUNDS, help="Measure each config at least this often, interleaved.")
    ] = 3,
    python: Python = None,
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect", help="With --python: which of the packages that differ run in the slower parts of a call."
        ),
    ] = False,
    factory: Factory = None,
    run_code: RunCode = False,
    timeout: Timeout = "30m",
    device: SameDevice = None,
    as_json: JsonObject = False,
) -> None:
    """Measure whether the second config is faster than the first: interleaved, each time in a fresh process.

    With --python, one config is measured here and in that environment: is it slower after an update?
    """
    from autotune.goal import read_seconds
    from autotune.report.terminal.theme import plain_console, show_heading, show_steps
    from autotune.report.terminal.trust import comparison_data, comparison_steps, comparison_words, round_line
    from autotune.tuning.compare import compare as measure

    def listen(number: int, which: Path) -> None:
        if not as_json:
            print(round_line(number, str(which)), flush=True)

    if not as_json:
        show_heading(plain_console(), "compare", f"{first} {f'and {second}' if second else f'here and by {python}'}")
    result = measure(
        first,
        second,
        python=python,
        bisect=bisect,
        rounds=rounds,
        timeout_s=read_seconds(timeout),
        device=device,
        factory=factory,
        run_code=run_code,
        listen=listen,
    )
    if as_json:
        print(json.dumps(comparison_data(result)))
        return
    print(comparison_words(result))
    show_steps(plain_console(), comparison_steps(result))


@app.command()
@grouped
def selftest(
    model: Model,
    calls: Call,
    *,
    pairs: Annotated[int, typer.Option(help="Pairs of fresh processes.")] = 20,
    timeout: Timeout = "30m",
    device: DeviceName = None,
    as_json: JsonObject = False,
) -> None:
    """Measure the baseline against itself, to see how noisy this machine is today (an A/A test)."""
    from autotune.goal import read_seconds
    from autotune.report.terminal.theme import plain_console, show_heading, show_steps
    from autotune.report.terminal.trust import pair_line, selftest_data, selftest_steps, selftest_words
    from autotune.tuning.selftest import selftest as measure

    def listen(number: int, first_s: float, second_s: float) -> None:
        if not as_json:
            print(pair_line(number, pairs, first_s, second_s), flush=True)

    named, seconds = {**model.arguments, **calls.arguments}, read_seconds(timeout)
    if not as_json:
        show_heading(plain_console(), "selftest", f"{model.pipeline}, the baseline against itself")
    result = measure(**named, pairs=pairs, device=device, timeout_s=seconds, listen=listen)
    if as_json:
        print(json.dumps(selftest_data(result)))
        return
    print(selftest_words(result))
    show_steps(plain_console(), selftest_steps(model.pipeline))
