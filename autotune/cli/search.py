"""Commands that tune: search (find the best config), ladder (measure a published recipe rung by rung)."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.exits import end_early, resumable
from autotune.cli.grouped import grouped, in_panels
from autotune.cli.options import (
    Address,
    Baseline,
    Call,
    ControlImage,
    DeviceName,
    Exclude,
    Fix,
    IsolationWord,
    JsonLines,
    Mask,
    MaxQualityDrop,
    Model,
    Prompts,
    ReuseFlag,
    Scorer,
    Space,
    StartImage,
    ThriftFlag,
    Timeout,
    Workers,
    Workloads,
    by_name,
    read_fixes,
    read_isolation,
)

PANELS = {  # of the help of `search`, below the options that a first search needs
    "What is loaded": [field.name for field in dataclasses.fields(Model) if field.name != "pipeline"],
    "How it is called": [
        *(field.name for field in dataclasses.fields(Call)),
        *("prompts", "image", "mask", "control_image", "workload", "seed"),
    ],
    "The search space": ["space", "fix", "exclude", "lora_later", "ip_adapter_later", "baseline"],
    "The goal": ["max_ram", "max_latency", "max_worst_place", "minimise", "scorer"],
    "The trials": ["sampler", "warm_start", "reuse", "timeout", "isolation", "workers", "address"],
    "The confirmation": ["confirm_rounds", "confirm_pairs"],
}


@app.command()
@in_panels(PANELS)
@grouped
def search(
    model: Model,
    calls: Call,
    *,
    budget: Annotated[int, typer.Option(help="Trials of the whole study, the baseline among them.")] = 50,
    study: Annotated[
        Path | None,
        typer.Option(help="Its folder. Default: reports/DATE-PIPELINE-DEVICE, and a digest of the other options."),
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Start no trial that would end after this long, such as 30m.")
    ] = None,
    space: Space = None,
    fix: Fix = None,
    exclude: Exclude = None,
    lora_later: Annotated[
        bool, typer.Option("--lora-later", help="Only settings that survive a LoRA put on later.")
    ] = False,
    ip_adapter_later: Annotated[
        bool,
        typer.Option("--ip-adapter-later", help="Only settings that survive an IP-Adapter put on later."),
    ] = False,
    max_vram: Annotated[
        str | None,
        typer.Option(help="Most peak memory of the pick, such as 8GB. On a GPU a default baseline keeps it, too."),
    ] = None,
    max_ram: Annotated[
        str | None, typer.Option(help="Most memory of the host that the pick's process takes, such as 32GB.")
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            help="Most seconds of a call of the pick, such as 2s. Of several workloads: of their sum, with --minimise "
            "each of the slowest."
        ),
    ] = None,
    max_quality_drop: MaxQualityDrop = None,
    max_worst_place: Annotated[
        float | None,
        typer.Option(help="Most difference at the worst cell, row or column of a picture, in levels of 0 to 255."),
    ] = None,
    prompts: Prompts = None,
    image: StartImage = None,
    mask: Mask = None,
    control_image: ControlImage = None,
    workload: Workloads = None,
    minimise: Annotated[
        str,
        typer.Option(help="Of several workloads: sum (of their latencies), or each (latency is an objective)."),
    ] = "sum",
    seed: Annotated[int, typer.Option(help="Of the start noise and of the sampler.")] = 0,
    warm_start: Annotated[
        list[Path] | None,
        typer.Option(help="A study of the same family (its folder, or a recorded table) that orders the first trials."),
    ] = None,
    sampler: Annotated[str, typer.Option(help="auto (ours), tpe, random, nsga2 or gp.")] = "auto",
    timeout: Timeout = "30m",
    confirm_rounds: Annotated[
        int, typer.Option(min=0, help="Measure the pick and the baseline again at least this often; 0: not at all.")
    ] = 3,
    confirm_pairs: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Compare the pick's pictures over this many prompts and seeds. Default: up to 128.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Time fewer calls, confirm with 3 to 6 rounds and 32 pairs. The result says so."),
    ] = False,
    scorer: Scorer = None,
    device: DeviceName = None,
    isolation: IsolationWord = None,
    reuse: ReuseFlag = True,
    thrift: ThriftFlag = None,
    baseline: Baseline = "default",
    workers: Workers = None,
    address: Address = None,
    as_json: JsonLines = False,
) -> None:
    """Try combinations of settings, measure each in a process of its own, export the best as JSON.

    The same command continues a search that was stopped; a larger --budget continues a finished one.
    """
    from autotune.goal import read_bytes, read_seconds
    from autotune.report.terminal.show import show_search
    from autotune.workload import read_workload

    time_budget_s = read_seconds(time_budget) if time_budget else None
    with resumable():
        result = show_search(
            as_json=as_json,
            **model.arguments,
            **calls.arguments,
            budget=budget,
            study=study,
            time_budget_s=time_budget_s,
            space=space,
            fix=read_fixes(fix or []),
            exclude=exclude or [],
            lora_later=lora_later,
            ip_adapter_later=ip_adapter_later,
            max_vram_bytes=read_bytes(max_vram) if max_vram else None,
            max_ram_bytes=read_bytes(max_ram) if max_ram else None,
            max_latency_s=read_seconds(max_latency) if max_latency else None,
            max_quality_drop=max_quality_drop,
            max_worst_place_levels=max_worst_place,
            prompts=prompts,
            image=image or [],
            mask=mask or [],
            control_image=control_image or [],
            workloads=[read_workload(text) for text in workload or []],
            minimise=minimise,
            seed=seed,
            warm_start=warm_start or [],
            sampler=sampler,
            timeout_s=read_seconds(timeout),
            confirm_rounds=confirm_rounds,
            confirm_pairs=confirm_pairs,
            quick=quick,
            scorer=scorer,
            device=device,
            isolation=read_isolation(isolation),
            reuse=reuse if thrift is None else thrift,
            baseline=baseline,
            workers=workers,
            address=address,
            command=shlex.join(["autotune", *by_name(sys.argv[1:], warm_start or [])]),
        )
    end_early(result.held)


@app.command()
@grouped
def ladder(
    model: Model,
    calls: Call,
    *,
    recipe: Annotated[
        str, typer.Option(help="fast-diffusion, memory, tome, torch2, or a TOML file.")
    ] = "fast-diffusion",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Its folder. Default: reports/DATE-PIPELINE-DEVICE-RECIPE.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt a line. Default: 8 of ours.")] = None,
    seed: Annotated[int, typer.Option(help="Of the start noise.")] = 0,
    timeout: Timeout = "30m",
    scorer: Scorer = None,
    device: DeviceName = None,
    as_json: JsonLines = False,
) -> None:
    """Measure a published recipe rung by rung, each in a process of its own, beside the published figures.

    The same command continues a ladder that was stopped.
    """
    from autotune.goal import read_seconds
    from autotune.report.terminal.ladder import show_ladder

    with resumable():
        show_ladder(
            as_json=as_json,
            **model.arguments,
            **calls.arguments,
            recipe=recipe,
            output=output,
            prompts=prompts,
            seed=seed,
            timeout_s=read_seconds(timeout),
            scorer=scorer,
            device=device,
            command=shlex.join(["autotune", *sys.argv[1:]]),
        )
