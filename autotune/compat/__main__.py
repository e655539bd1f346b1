"""The command line of python -m autotune.compat.

Exit codes: 0 nothing failed, 1 something failed, 2 the input can't be used, 130 Ctrl-C.
"""

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autotune.compat.record import PipelineVerdicts
from autotune.compat.run import compat
from autotune.compat.table import progress, summary
from autotune.errors import UserError


def main(
    device: Annotated[
        str | None, typer.Option(help="cuda, cuda:N or cpu. Default: the first GPU, else the CPU.")
    ] = None,
    pipelines: Annotated[str | None, typer.Option(help="The pipelines to try, such as sd,sdxl. Default: all.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Default: reports/compat-DEVICE.json. An unfinished file is continued."),
    ] = None,
    only: Annotated[str, typer.Option(help="Only pairs with one of these knobs, such as cache,vae.")] = "",
    without: Annotated[str, typer.Option(help="No pair with one of these knobs, such as compile.")] = "",
    limit_s: Annotated[float | None, typer.Option(min=1.0, help="Begin nothing new after this many seconds.")] = None,
    challenge_refusals: Annotated[
        bool, typer.Option("--challenge-refusals", help="Run the refused pairs as well, to see which work here.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Run the failed checks again.")] = False,
    capture: Annotated[
        bool, typer.Option("--capture", help="Run graphs as they are captured: minutes, where compiling takes hours.")
    ] = False,
    together: Annotated[
        bool, typer.Option("--together", help="Try many pairs in one config, and alone only those that fail there.")
    ] = False,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: 1 on a CPU, up to 8 on a GPU.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep pictures and logs in this folder.")] = None,
) -> None:
    """Try every pair of settings on tiny pipelines, with the libraries that are installed here."""
    console = Console(highlight=False, soft_wrap=True)

    def listen(name: str, verdicts: PipelineVerdicts) -> None:
        console.print(progress(name, verdicts), markup=False)

    try:
        with tempfile.TemporaryDirectory(prefix="autotune-compat-") as scratch:
            path, record = compat(
                keep or Path(scratch),
                output,
                device=device,
                pipelines=pipelines,
                only=_words(only),
                without=_words(without),
                challenge=challenge_refusals,
                again=again,
                captured=capture,
                together=together,
                limit_s=limit_s,
                at_once=at_once,
                command=shlex.join(["python", "-m", "autotune.compat", *sys.argv[1:]]),
                listen=listen,
            )
    except KeyboardInterrupt:
        print("autotune: stopped; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None
    console.print(summary(record), f"\nwritten to {path}", markup=False)
    every = [v for p in record.pipelines.values() for v in (*p.singles.values(), *p.pairs.values())]
    sys.exit(any(verdict.outcome == "failed" for verdict in every))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def run() -> None:
    """Run the command; an expected error becomes one sentence and an exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except UserError as error:
        print(f"autotune: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
