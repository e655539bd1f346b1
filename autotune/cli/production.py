"""export, schema, verify, run, chain: what becomes of an exported config."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.options import DeviceName
from autotune.cli.terminal import heading, progress_bar, show_steps
from autotune.errors import UserError


@app.command()
def export(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    pick: Annotated[str, typer.Option(help="fastest, smallest, balanced, or the number of a trial.")] = "fastest",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: PICK.json (.py, .md) in the study.")
    ] = None,
    as_: Annotated[
        str, typer.Option("--as", help="json, python (a script without autotune) or markdown (for a model card).")
    ] = "json",
    with_artifacts: Annotated[
        bool, typer.Option("--with-artifacts", help="Compile here, and keep the compiled code beside the JSON.")
    ] = False,
) -> None:
    """Write one trial of a study as the JSON that autotune.load() reads, or as a script or a text."""
    from autotune.production.plain_script import SUFFIXES, write_text
    from autotune.tuning.export import export_from

    if as_ not in SUFFIXES:
        raise UserError(f"--as takes {', '.join(SUFFIXES)}, not {as_!r}.")
    if with_artifacts and as_ != "json":
        raise UserError(f"--with-artifacts goes with a JSON, not with --as {as_}.")
    path = output or study / f"{pick}{SUFFIXES[as_]}"
    tuned = export_from(study, pick)
    if as_ != "json":
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
    from autotune.production.schema import schema as made

    print(json.dumps(made(), indent=2))


@app.command()
def verify(
    config: Annotated[Path, typer.Argument(help="An exported config, such as best.json.")],
    rounds: Annotated[int, typer.Option(min=2, help="Measure it in at least so many fresh processes.")] = 3,
    timeout: Annotated[str, typer.Option(help="The longest that a run may take.")] = "30m",
    device: DeviceName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure an exported config again: does it do on this machine what its file says?

    Exit codes: 0 it holds or is faster, 1 slower or larger, 3 broken (it can't run, or draws other pictures), 2 input
    that can't be used.
    """
    from autotune.goal import read_seconds
    from autotune.production.tuned_config import TunedConfig
    from autotune.report.terminal.verify import verification_steps, verification_words
    from autotune.tuning.verify import verify as measure

    def listen(what: str) -> None:
        if not as_json:
            print(what, flush=True)

    if not as_json:
        heading("verify", str(config))
    seen = measure(config, rounds=rounds, timeout_s=read_seconds(timeout), device=device, listen=listen)
    if as_json:
        speed = seen.speed.to_json() if seen.speed else None
        print(json.dumps({**seen.to_json(), "verdict": seen.word, "speed": speed}))
    else:
        print(verification_words(seen))
        show_steps(verification_steps(seen, TunedConfig.load(config).pipeline.name))
    raise typer.Exit({"holds": 0, "faster": 0, "broken": 3}.get(seen.word, 1))


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="An exported config, such as best.json, or a chain of them.")],
    prompt: Annotated[str | None, typer.Option(help="What to draw.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt a line.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 1,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .png, .jpg or .webp.")] = Path("out.png"),
    out: Annotated[Path | None, typer.Option(help="A folder for the pictures: 000.png, 001.png ...")] = None,
    image: Annotated[
        Path | None, typer.Option(help="The picture to start from, where the pipeline starts from one. Default: ours.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="What to redraw of it, in white. Default: ours.")] = None,
    seed: Annotated[int, typer.Option(help="Of the start noise; every further picture has the next one.")] = 0,
    device: DeviceName = None,
) -> None:
    """Make pictures with an exported config: one as FILE (-o), or many in a folder (--out)."""
    from autotune.production.run import draw, plan

    asked = plan(prompt, prompts, count=count, seed=seed, output=output, out=out)
    with progress_bar(len(asked.outputs)) as advance:
        told = draw(config, asked, image=image, mask=mask, device=device, listen=advance)
    print(f"{out or output}: {told}")


@app.command()
def chain(
    stages: Annotated[list[Path], typer.Argument(help="Exported configs, in the order in which they run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the chain's JSON goes.")] = Path("chain.json"),
    rounds: Annotated[int, typer.Option(min=2, help="Measure the chain and its baseline so often, in turn.")] = 3,
    timeout: Annotated[str, typer.Option(help="The longest that a run may take.")] = "30m",
    device: DeviceName = None,
) -> None:
    """Measure stages that were tuned one by one (DeepFloyd IF's, say) as a whole, and export them as one JSON."""
    from autotune.goal import read_seconds
    from autotune.tuning.chain import chain as measure

    def listen(number: int, which: str) -> None:
        print(f"round {number} of {rounds}: the {which} chain", flush=True)

    command = shlex.join(["autotune", *sys.argv[1:]])
    seconds = read_seconds(timeout)
    made = measure(stages, rounds=rounds, timeout_s=seconds, device=device, command=command, listen=listen)
    made.save(output)
    print(f"{output}: {made.about}")
