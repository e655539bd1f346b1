"""Commands about exported configs: export (write one), schema, verify (measure it again), run, chain."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.cli.app import app
from autotune.cli.exits import BROKEN, DONE, WORSE
from autotune.cli.options import (
    MOST_ROUNDS,
    DeviceName,
    Factory,
    JsonObject,
    Pick,
    Python,
    RunCode,
    SameDevice,
    Timeout,
)
from autotune.errors import UserError


@app.command()
def export(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    pick: Pick = "fastest",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file. Default: PICK.json (.py, .md ...) in the study.")
    ] = None,
    as_: Annotated[
        str,
        typer.Option(
            "--as",
            help="json, python (a script without autotune), markdown (for a model card), or for another program: "
            "diffusers, cache-dit, sglang, comfyui.",
        ),
    ] = "json",
    with_artifacts: Annotated[
        bool, typer.Option("--with-artifacts", help="Compile now, and store the compiled code beside the JSON.")
    ] = False,
) -> None:
    """Export one trial of a study: as the JSON that autotune.load() reads, a script, Markdown or for another program.

    What another program can't take of the config is listed in its file, and on standard error.
    """
    from autotune.production.plain_script import SUFFIXES, write_text
    from autotune.production.programs import SUFFIXES as OF_PROGRAMS
    from autotune.production.programs import write_for
    from autotune.tuning.export import export_from

    suffixes = SUFFIXES | OF_PROGRAMS
    if as_ not in suffixes:
        raise UserError(f"--as takes {', '.join(suffixes)}, not {as_!r}.")
    if with_artifacts and as_ != "json":
        raise UserError(f"--with-artifacts needs --as json, not --as {as_}.")
    path = output or study / f"{pick}{suffixes[as_]}"
    tuned = export_from(study, pick)
    if as_ in OF_PROGRAMS:
        for what in write_for(tuned, as_, path).left_out:
            print(f"not in the file: {what}", file=sys.stderr)
    elif as_ != "json":
        write_text(tuned, as_, path)
    elif with_artifacts:
        from autotune.tuning.compile_artifacts import save_with_artifacts

        save_with_artifacts(tuned, path)
    else:
        tuned.save(path)
    print(f"{path}: {tuned.about}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of exported configs."""
    from autotune.production.schema import schema as json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command()
def verify(
    config: Annotated[Path, typer.Argument(help="An exported config, such as best.json.")],
    rounds: Annotated[
        int, typer.Option(min=2, max=MOST_ROUNDS, help="Measure it in at least this many fresh processes.")
    ] = 3,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="A picture of your own that the search started from, where this machine has it no more."),
    ] = None,
    python: Python = None,
    factory: Factory = None,
    run_code: RunCode = False,
    timeout: Timeout = "30m",
    device: SameDevice = None,
    as_json: JsonObject = False,
) -> None:
    """Measure an exported config again, and compare it with the figures in its file.

    Exit codes: 0 holds or faster, 1 slower or larger, 2 bad input, 3 broken (it can't run, or draws other pictures).
    """
    from autotune.goal import read_seconds
    from autotune.production.tuned_config import TunedConfig
    from autotune.report.terminal.theme import plain_console, show_heading, show_steps
    from autotune.report.terminal.verify import verification_data, verification_steps, verification_words
    from autotune.tuning.verify import verify as measure

    def listen(what: str) -> None:
        if not as_json:
            print(what, flush=True)

    if not as_json:
        show_heading(plain_console(), "verify", str(config))
    how: dict[str, Any] = {"timeout_s": read_seconds(timeout), "device": device, "python": python}
    how["images"] = image or []
    result = measure(config, rounds=rounds, listen=listen, factory=factory, run_code=run_code, **how)
    if as_json:
        print(json.dumps(verification_data(result)))
    else:
        print(verification_words(result))
        show_steps(plain_console(), verification_steps(result, TunedConfig.load(config).pipeline.name))
    raise typer.Exit({"holds": DONE, "faster": DONE, "broken": BROKEN}.get(result.word, WORSE))


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="An exported config, such as best.json, or a chain of configs.")],
    prompt: Annotated[str | None, typer.Option(help="What to draw; or use --prompts.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt a line.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The file of a single picture (.png, .jpg or .webp; default out.png) or clip (.webp, .gif, .png or "
            ".mp4; default out.webp).",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of several pictures: 000.png, 001.png ...")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="The picture to start from, for a pipeline that needs one; for each ControlNet one."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="The part of the picture to redraw, in white, for inpainting. Default: ours.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the start noise of the first picture; each further one adds 1.")] = 0,
    factory: Factory = None,
    run_code: RunCode = False,
    device: SameDevice = None,
) -> None:
    """Draw pictures with an exported config: one into a file (-o), or several into a folder (--out)."""
    from autotune.production.run import draw, plan
    from autotune.report.terminal.progress import pictures_bar

    pictures = plan(prompt, prompts, count=count, seed=seed, output=output, out=out)
    with pictures_bar(len(pictures.outputs)) as advance:
        how: dict[str, Any] = {"device": device, "factory": factory, "run_code": run_code}
        written: list[Path] = []

        def listen(done: Path) -> None:
            advance(done)
            written.append(done)

        sentence = draw(config, pictures, image=image or (), mask=mask, listen=listen, **how)
    print(f"{out or written[0]}: {sentence}")


@app.command()
def chain(
    stages: Annotated[list[Path], typer.Argument(help="Exported configs, in the order in which they run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSON of the chain.")] = Path("chain.json"),
    rounds: Annotated[
        int, typer.Option(min=2, help="Measure the chain and its baseline at least this often, interleaved.")
    ] = 3,
    timeout: Timeout = "30m",
    device: DeviceName = None,
) -> None:
    """Measure a chain of stages that were tuned one by one, such as DeepFloyd IF, and export it as one JSON."""
    from autotune.goal import read_seconds
    from autotune.report.terminal.trust import round_line
    from autotune.tuning.chain import chain as measure

    def listen(number: int, which: str) -> None:
        print(round_line(number, f"the {which} chain", rounds), flush=True)

    command = shlex.join(["autotune", *sys.argv[1:]])
    seconds = read_seconds(timeout)
    made = measure(stages, rounds=rounds, timeout_s=seconds, device=device, command=command, listen=listen)
    made.save(output)
    print(f"{output}: {made.about}")
