"""search, ladder: the main job."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.options import (
    ControlNet,
    DeviceName,
    LoRA,
    PipelineName,
    Task,
    Weights,
    at_least_one,
    by_name,
    read_fixes,
    read_isolation,
    read_weights,
)
from autotune.cli.terminal import resumable


@app.command()
def search(
    pipeline: PipelineName = "demo",
    task: Task = None,
    controlnet: ControlNet = None,
    lora: LoRA = None,
    budget: Annotated[int, typer.Option(help="Trials of the whole study, the baseline among them.")] = 50,
    study: Annotated[Path | None, typer.Option(help="Its folder. Default: reports/DATE-PIPELINE-DEVICE.")] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Start no trial that would end after this long, such as 30m.")
    ] = None,
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
    warm_start: Annotated[
        list[Path] | None,
        typer.Option(
            help="An earlier study of the same family (its folder, or a recorded table): orders the first trials."
        ),
    ] = None,
    sampler: Annotated[str, typer.Option(help="auto (ours), tpe, random, nsga2 or gp.")] = "auto",
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
    isolation: Annotated[
        str | None,
        typer.Option(help="How trials start: fork (off a process that has loaded the libraries) or spawn (afresh)."),
    ] = None,
    reuse: Annotated[
        bool,
        typer.Option(
            help="Don't compile or draw what an earlier trial has, nor draw what can't reach the Pareto front any more."
        ),
    ] = True,
    thrift: Annotated[bool | None, typer.Option("--thrift/--no-thrift", hidden=True)] = None,
    baseline: Annotated[str, typer.Option(help="default (float32), fp16, bf16, or an exported config.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
) -> None:
    """Try combinations of settings, measure each in a process of its own, export the best as JSON.

    The same command continues a search that was stopped; a larger --budget continues one that was finished.
    """
    from autotune.goal import read_bytes, read_seconds
    from autotune.report.terminal.show import show_search
    from autotune.workload import read_size, read_workload

    time_budget_s = read_seconds(time_budget) if time_budget else None
    at_least_one({"--steps": steps, "--batch": batch})
    with resumable():
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
            warm_start=warm_start or [],
            sampler=sampler,
            timeout_s=read_seconds(timeout),
            confirm_rounds=confirm_rounds,
            confirm_pairs=confirm_pairs,
            weights=read_weights(weights),
            scorer=scorer,
            device=device,
            isolation=read_isolation(isolation),
            reuse=reuse if thrift is None else thrift,
            baseline=baseline,
            command=shlex.join(["autotune", *by_name(sys.argv[1:], warm_start or [])]),
        )


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
    from autotune.report.terminal.ladder import show_ladder
    from autotune.workload import read_size

    at_least_one({"--steps": steps, "--batch": batch})
    with resumable():
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
