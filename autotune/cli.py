"""argv -> calls -> words and exit codes. The only file that prints.

Exit codes: 0 done, 1 nothing could be found or measured, 2 input that can't be used, 3 broken (verify), 130 stopped by
Ctrl-C.
Imports of anything heavier than typer are inside the commands, so that `autotune --help` is instant.
"""

import errno
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the fastest, smallest settings of a diffusers pipeline on this device, with numbers you can trust.",
)

PipelineName = Annotated[
    str, typer.Option(help="A preset (demo, sd15, sdxl, if-stage1 ...), a hub id or a local folder.")
]
Task = Annotated[str | None, typer.Option(help="text2image, image2image or inpainting: the sister pipeline for it.")]
ControlNet = Annotated[str | None, typer.Option(help="A ControlNet to load with it: a hub id or a local folder.")]
LoRA = Annotated[str | None, typer.Option(help="A LoRA to fuse: a hub id, a folder or a .safetensors file.")]
DeviceName = Annotated[str | None, typer.Option(help="cuda, cuda:N or cpu. Default: the first GPU, else the CPU.")]
Weights = Annotated[str, typer.Option(help="pretrained, or random: the full architecture with random weights.")]


def main() -> None:
    """The console script: every expected error becomes one sentence and an exit code."""
    try:
        app()
    except UserError as error:
        print(f"autotune: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print("autotune: no room left on the disk; free some, then the same command continues.", file=sys.stderr)
        sys.exit(2)


@app.command()
def search(
    pipeline: PipelineName = "demo",
    task: Task = None,
    controlnet: ControlNet = None,
    lora: LoRA = None,
    budget: Annotated[int, typer.Option(help="Trials of the whole study, the baseline among them.")] = 50,
    study: Annotated[Path | None, typer.Option(help="Its folder. Default: reports/DATE-PIPELINE-DEVICE.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Start no trial after this long, such as 30m.")] = None,
    space: Annotated[Path | None, typer.Option(help="A space file (TOML): which values of which knobs.")] = None,
    fix: Annotated[list[str] | None, typer.Option(help="KNOB=VALUE: hold a knob at a value.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="KNOB: leave it as the baseline has it.")] = None,
    max_vram: Annotated[str | None, typer.Option(help="Most peak memory of the pick, such as 8GB.")] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            help="Most seconds of a call of the pick, such as 2s. Of several sizes: of all together, with "
            "--minimise each of the slowest."
        ),
    ] = None,
    max_quality_drop: Annotated[
        float | None,
        typer.Option(help="Most CLIP points that the pick may lose (default 0.3), or 100 x (1 - SSIM) (default 10)."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file with one prompt a line, or JSON lines (.jsonl) with seeds. Best: your own."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of the workload.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a call. Default: 1.")] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            help="WIDTHxHEIGHT[@BATCH] instead of --size and --batch. Several: every config is timed at each, pictures "
            "are judged at the first."
        ),
    ] = None,
    minimise: Annotated[
        str,
        typer.Option(
            help="Of several sizes: the sum of their latencies, or each one by itself (the pick has the least sum)."
        ),
    ] = "sum",
    seed: Annotated[int, typer.Option(help="Of the start noise, and of the sampler.")] = 0,
    sampler: Annotated[str, typer.Option(help="tpe, random, nsga2 or gp.")] = "tpe",
    timeout: Annotated[str, typer.Option(help="The longest that a trial may take.")] = "30m",
    confirm_rounds: Annotated[
        int, typer.Option(min=0, help="Measure the pick and the baseline again at least so often; 0: not at all.")
    ] = 3,
    confirm_pairs: Annotated[
        int | None,
        typer.Option(min=0, help="Compare the pick's pictures over so many prompts and seeds. Default: up to 128."),
    ] = None,
    weights: Weights = "pretrained",
    scorer: Annotated[str | None, typer.Option(help="A CLIP model of the hub, or none: likeness alone.")] = None,
    device: DeviceName = None,
    baseline: Annotated[str, typer.Option(help="default (float32), fp16, bf16, or an exported config.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
) -> None:
    """Try combinations of settings, measure each in a process of its own, export the best as JSON.

    The same command continues a search that was stopped; a larger --budget continues one that was finished.
    """
    from autotune.goal import read_bytes, read_seconds
    from autotune.report.show import show_search
    from autotune.workload import read_size, read_workload

    time_budget_s = read_seconds(time_budget) if time_budget else None
    at_least_one({"--steps": steps, "--batch": batch})
    try:
        show_search(
            as_json=as_json,
            pipeline=pipeline,
            task=task,
            controlnet=controlnet,
            lora=lora,
            budget=budget,
            study=study,
            time_budget_s=time_budget_s,
            space=space,
            fix=read_fixes(fix or []),
            exclude=exclude or [],
            max_vram_bytes=read_bytes(max_vram) if max_vram else None,
            max_latency_s=read_seconds(max_latency) if max_latency else None,
            max_quality_drop=max_quality_drop,
            prompts=prompts,
            steps=steps,
            size=read_size(size) if size else None,
            batch=batch,
            workloads=[read_workload(text) for text in workload or []],
            minimise=minimise,
            seed=seed,
            sampler=sampler,
            timeout_s=read_seconds(timeout),
            confirm_rounds=confirm_rounds,
            confirm_pairs=confirm_pairs,
            weights=read_weights(weights),
            scorer=scorer,
            device=device,
            baseline=baseline,
            command=shlex.join(["autotune", *sys.argv[1:]]),
        )
    except KeyboardInterrupt:
        print("autotune: stopped; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command()
def ladder(
    pipeline: PipelineName = "demo",
    task: Task = None,
    controlnet: ControlNet = None,
    lora: LoRA = None,
    recipe: Annotated[
        str, typer.Option(help="fast-diffusion, memory, tome, torch2, or a TOML file.")
    ] = "fast-diffusion",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Its folder. Default: reports/DATE-PIPELINE-DEVICE-RECIPE.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt a line. Default: 8 of ours.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures a call.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the start noise.")] = 0,
    timeout: Annotated[str, typer.Option(help="The longest that a rung may take.")] = "30m",
    weights: Weights = "pretrained",
    scorer: Annotated[str | None, typer.Option(help="A CLIP model of the hub, or none: likeness alone.")] = None,
    device: DeviceName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
) -> None:
    """Measure a published recipe rung by rung, each in a process of its own, beside the published figures.

    The same command continues a ladder that was stopped.
    """
    from autotune.goal import read_seconds
    from autotune.report.show import show_ladder
    from autotune.workload import read_size

    at_least_one({"--steps": steps, "--batch": batch})
    try:
        show_ladder(
            as_json=as_json,
            pipeline=pipeline,
            task=task,
            controlnet=controlnet,
            lora=lora,
            recipe=recipe,
            output=output,
            prompts=prompts,
            steps=steps,
            size=read_size(size) if size else None,
            batch=batch,
            seed=seed,
            timeout_s=read_seconds(timeout),
            weights=read_weights(weights),
            scorer=scorer,
            device=device,
            command=shlex.join(["autotune", *sys.argv[1:]]),
        )
    except KeyboardInterrupt:
        print("autotune: stopped; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None


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
    from autotune.export import export_from
    from autotune.export_as import SUFFIXES, write_text

    if as_ not in SUFFIXES:
        raise UserError(f"--as takes {', '.join(SUFFIXES)}, not {as_!r}.")
    if with_artifacts and as_ != "json":
        raise UserError(f"--with-artifacts goes with a JSON, not with --as {as_}.")
    path = output or study / f"{pick}{SUFFIXES[as_]}"
    tuned = export_from(study, pick)
    if as_ != "json":
        write_text(tuned, as_, path)
    elif with_artifacts:
        from autotune.make_artifacts import save_with_artifacts

        save_with_artifacts(tuned, path)
    else:
        tuned.save(path)
    print(f"{path}: {tuned.about}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of exported configs."""
    from autotune.schema import schema as made

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
    from autotune.report.verify import verification_words
    from autotune.verify import verify as measure

    def listen(what: str) -> None:
        if not as_json:
            print(what, flush=True)

    seen = measure(config, rounds=rounds, timeout_s=read_seconds(timeout), device=device, listen=listen)
    speed = seen.speed.to_json() if seen.speed else None
    told = {**seen.to_json(), "verdict": seen.word, "speed": speed}
    print(json.dumps(told) if as_json else verification_words(seen))
    raise typer.Exit({"holds": 0, "faster": 0, "broken": 3}.get(seen.word, 1))


@app.command()
def score(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    metric: Annotated[
        list[str],
        typer.Option(help="NAME, NAME=MODEL (a hub id or folder), or FILE.py:FUNCTION, a metric of your own."),
    ],
    run_code: Annotated[bool, typer.Option("--run-code", help="Let FILE.py:FUNCTION run.")] = False,
    device: Annotated[str | None, typer.Option(help="Where the models run. Default: cpu.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
) -> None:
    """Score the pictures that a study has saved by other metrics, without running a trial.

    metrics: clip_score, clip_image, pickscore, image_reward, ssim, psnr, lpips.
    """
    from autotune.folders import StudyFolder
    from autotune.record import read_trials
    from autotune.report.score import scores_data, scores_table
    from autotune.score import score as take

    taken = take(study, metric, run_code=run_code, device=device)
    configs = {trial.number: trial.config for trial in read_trials(StudyFolder(study))}
    for scored in taken:
        if as_json:
            print(json.dumps(scores_data(scored, configs)))
        else:
            console().print(scores_table(scored, configs))


@app.command()
def report(study: Annotated[Path, typer.Argument(help="A study's folder, finished or not.")]) -> None:
    """Write report.html, a page that opens from disk, and report.md into the study's folder."""
    from autotune.report.page import write_report
    from autotune.report.story import answer, next_steps, read_story

    story = read_story(study)
    write_report(story)
    heading("report", story.title)
    print(f"{answer(story)}\n{story.folder.report}\n{story.folder.report_markdown}")
    steps(next_steps(story))


@app.command()
def ablate(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    pick: Annotated[
        str | None, typer.Option(help="fastest, smallest, balanced, or the number of a trial. Default: best.json's.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Measure each setting at least so often, in turn.")] = 3,
    timeout: Annotated[str, typer.Option(help="The longest that a run may take.")] = "30m",
) -> None:
    """Take the settings out of the pick one by one, measured in turn with it; drop those that bring nothing.

    The same command continues what was stopped. Where less does as well, best.json becomes less.
    """
    from autotune.ablate import ablate as measure
    from autotune.goal import read_seconds
    from autotune.report.page import write_report
    from autotune.report.story import next_steps, read_story
    from autotune.report.trust import ablation_words

    def listen(what: str, number: int) -> None:
        print(f"round {number}: {what}", flush=True)

    heading("ablate", str(study))
    try:
        made = measure(study, pick=pick, rounds=rounds, timeout_s=read_seconds(timeout), listen=listen)
    except KeyboardInterrupt:
        print("autotune: stopped; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None
    print(ablation_words(made))
    story = read_story(study)
    write_report(story)
    steps(next_steps(story))


@app.command()
def table(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    format: Annotated[str, typer.Option(help="csv, json, markdown or latex; parquet with -o.")] = "csv",
    samples: Annotated[
        bool, typer.Option("--samples", help="A row for every timed call instead of every trial.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file. Default: standard output.")] = None,
) -> None:
    """Print a study as a table: one row a trial, with its knobs, figures, quality and outcome."""
    from autotune.folders import write_text
    from autotune.report.table import formatted, samples_rows, trials_rows, write_parquet

    rows = (samples_rows if samples else trials_rows)(study)
    if format == "parquet":
        if output is None:
            raise UserError("--format parquet is for a file: name one with -o.")
        write_parquet(rows, output)
        return
    text = formatted(rows, format)
    if output is None:
        print(text, end="")
        return
    try:
        write_text(output, text)
    except OSError as error:
        raise UserError(f"{str(output)!r} can't be written: {error.strerror}.") from None


@app.command()
def watch(study: Annotated[Path, typer.Argument(help="The folder of a search that is running.")]) -> None:
    """Follow a running search from another terminal, until it ends."""
    from autotune.report.watch import show_watch

    try:
        show_watch(study)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def merge(
    studies: Annotated[list[Path], typer.Argument(help="Folders of studies: other devices, other pipelines.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page; its Markdown lies beside it.")] = Path(
        "comparison.html"
    ),
) -> None:
    """Put several studies on one page: what each technique brought where, beside published figures."""
    from autotune.folders import write_text
    from autotune.report.markdown import merged_markdown
    from autotune.report.merge import merge as read
    from autotune.report.page import merged_page

    merged, short = read(studies), output.with_suffix(".md")
    if output.suffix != ".html":
        raise UserError(f"-o {output}: the page is an .html.")
    try:
        write_text(output, merged_page(merged))
        write_text(short, merged_markdown(merged))
    except OSError as error:
        raise UserError(f"{str(output)!r} can't be written: {error.strerror}.") from None
    heading("merge", f"{len(studies)} studies")
    for title, _, said in merged.answers:
        print(f"{title}: {said}")
    print(f"{output}\n{short}")


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
    from autotune.run import draw, plan

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
    from autotune.chain import chain as measure
    from autotune.goal import read_seconds

    def listen(number: int, which: str) -> None:
        print(f"round {number} of {rounds}: the {which} chain", flush=True)

    command = shlex.join(["autotune", *sys.argv[1:]])
    seconds = read_seconds(timeout)
    made = measure(stages, rounds=rounds, timeout_s=seconds, device=device, command=command, listen=listen)
    made.save(output)
    print(f"{output}: {made.about}")


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
    import json

    from autotune.compare import compare as measure
    from autotune.goal import read_seconds
    from autotune.report.trust import comparison_words

    def listen(number: int, which: Path) -> None:
        if not as_json:
            print(f"round {number}: {which}", flush=True)

    if not as_json:
        heading("compare", f"{first} and {second}")
    seen = measure(first, second, rounds=rounds, timeout_s=read_seconds(timeout), device=device, listen=listen)
    print(json.dumps({**seen.to_json(), "verdict": seen.verdict.to_json()}) if as_json else comparison_words(seen))


@app.command()
def selftest(
    pipeline: PipelineName = "demo",
    pairs: Annotated[int, typer.Option(help="Pairs of fresh processes.")] = 20,
    weights: Weights = "pretrained",
    timeout: Annotated[str, typer.Option(help="The longest that a run may take.")] = "30m",
    device: DeviceName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure the baseline against itself, to see what this machine's figures are worth today (an A/A test)."""
    import json

    from autotune.goal import read_seconds
    from autotune.report import words
    from autotune.report.trust import selftest_words
    from autotune.selftest import selftest as measure

    def listen(number: int, first_s: float, second_s: float) -> None:
        if not as_json:
            print(f"pair {number} of {pairs}: {words.seconds(first_s)}, {words.seconds(second_s)}", flush=True)

    seconds = read_seconds(timeout)
    if not as_json:
        heading("selftest", f"{pipeline}, the baseline against itself")
    seen = measure(
        pipeline, pairs=pairs, weights=read_weights(weights), device=device, timeout_s=seconds, listen=listen
    )
    told = {"false_alarms": seen.false_alarms, "smallest_speedup": seen.smallest_speedup, "worst": seen.worst}
    print(json.dumps({**seen.to_json(), **told}) if as_json else selftest_words(seen))


@app.command()
def device() -> None:
    """Print what hardware was found, what it can do, and why we believe so."""
    from autotune.probe import probe_devices
    from autotune.report.terminal import device_table

    console().print(device_table(probe_devices()))


@app.command()
def knobs(
    pipeline: PipelineName = "demo",
    task: Task = None,
    controlnet: ControlNet = None,
    lora: LoRA = None,
    device: DeviceName = None,
    device_spec: Annotated[
        str | None, typer.Option(help="A GPU that is not here, such as a100, t4 or 4090: what would be on it.")
    ] = None,
    weights: Weights = "pretrained",
) -> None:
    """Print every knob: what would be searched here, and what not and why."""
    from autotune.device_specs import find_spec
    from autotune.probe import probe_space, probe_space_of
    from autotune.report.terminal import knobs_table

    wishes = {"task": task, "controlnet": controlnet, "lora": lora}
    if device_spec is None:
        console().print(knobs_table(*probe_space(pipeline, read_weights(weights), device, **wishes)))
        return
    if device is not None:
        raise UserError(f"--device {device} is here, --device-spec {device_spec} is not: give one of them.")
    console().print(knobs_table(*probe_space_of(pipeline, read_weights(weights), find_spec(device_spec), **wishes)))


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[Path], None]]:
    """Gives what is called for each picture that is done. Drawn on a terminal only, and for more than one picture."""
    if total < 2 or not sys.stdout.isatty():
        yield lambda done: None
        return
    from rich.progress import Progress

    with Progress(console=console()) as progress:
        task = progress.add_task("pictures", total=total)
        yield lambda done: progress.advance(task)


def console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def heading(command: str, about: str) -> None:
    from autotune.report.look import show_heading

    show_heading(console(), command, about)


def steps(steps: list[tuple[str, str]]) -> None:
    from autotune.report.look import show_steps

    show_steps(console(), steps)


def read_fixes(words: list[str]) -> dict[str, Any]:
    from autotune.config import read_value

    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UserError(f"--fix takes KNOB=VALUE such as dtype=bf16, not {name + equals + value!r}.")
    return {name: read_value(value) for name, _, value in pairs}


def read_weights(word: str) -> Any:
    if word not in ("pretrained", "random"):
        raise UserError(f"--weights takes pretrained or random, not {word!r}.")
    return word


def at_least_one(numbers: dict[str, int | None]) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UserError(f"{name} {number}: give at least 1.")


if __name__ == "__main__":
    main()
