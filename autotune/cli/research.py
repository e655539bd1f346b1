"""record, replay: spaces measured as a whole, and searches of them at no cost."""

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
    read_fixes,
    read_isolation,
    read_weights,
)
from autotune.cli.terminal import console, resumable, searches_bar
from autotune.errors import UserError

EVERYTHING = 10**9  # trials: more than any space has


@app.command()
def record(
    pipeline: PipelineName = "demo",
    task: Task = None,
    controlnet: ControlNet = None,
    lora: LoRA = None,
    sample: Annotated[
        int | None, typer.Option(help="Measure so many configs, drawn at random; the baseline and recipes are in.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Measure every config that the rules allow.")] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="The table.")] = Path("recording.parquet"),
    of: Annotated[
        Path | None, typer.Option("--from", help="A study's folder: make the table of it, measure nothing.")
    ] = None,
    study: Annotated[Path | None, typer.Option(help="The folder of the trials. Default: beside the table.")] = None,
    space: Annotated[Path | None, typer.Option(help="A space file (TOML): which values of which knobs.")] = None,
    fix: Annotated[list[str] | None, typer.Option(help="KNOB=VALUE: hold a knob at a value.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="KNOB: leave it as the baseline has it.")] = None,
    max_quality_drop: Annotated[float | None, typer.Option(help="A limit of the goal, as in a search.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt a line.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of the workload.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a call. Default: 1.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help="WIDTHxHEIGHT[@BATCH]; several, as in a search.")] = None,
    seed: Annotated[int, typer.Option(help="Of the start noise, and of the order.")] = 0,
    timeout: Annotated[str, typer.Option(help="The longest that a trial may take.")] = "30m",
    time_budget: Annotated[str | None, typer.Option(help="Start no trial after this long; the table has the rest.")] = (
        None
    ),
    weights: Weights = "pretrained",
    scorer: Annotated[str | None, typer.Option(help="A CLIP model of the hub, or none: likeness alone.")] = None,
    device: DeviceName = None,
    isolation: Annotated[str | None, typer.Option(help="fork or spawn, as in a search.")] = None,
    baseline: Annotated[str, typer.Option(help="default (float32), fp16, bf16, or an exported config.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
) -> None:
    """Measure a whole space, or a random part of it, and write one table (Parquet) for research and for `replay`.

    The trials are a study's, in random order: the same command continues what was stopped.
    """
    from autotune.goal import read_seconds
    from autotune.recordings.from_study import of_study
    from autotune.recordings.parquet import check_table_path, write_table
    from autotune.report.terminal.show import show_search
    from autotune.study.record import read_trials
    from autotune.study_folder import StudyFolder
    from autotune.workload import read_size, read_workload

    check_table_path(output)
    at_least_one({"--sample": sample, "--steps": steps, "--batch": batch})
    if [of is not None, sample is not None, everything].count(True) != 1:
        raise UserError("give one of --sample N, --all and --from STUDY.")
    folder = of
    if folder is None:
        with resumable():
            folder = show_search(
                as_json=as_json,
                pipeline=pipeline,
                task=task,
                controlnet=controlnet,
                lora=lora,
                budget=sample or EVERYTHING,
                study=study or output.with_suffix(""),
                time_budget_s=read_seconds(time_budget) if time_budget else None,
                space=space,
                fix=read_fixes(fix or []),
                exclude=exclude or [],
                max_quality_drop=max_quality_drop,
                prompts=prompts,
                steps=steps,
                size=read_size(size) if size else None,
                batch=batch,
                workloads=[read_workload(text) for text in workload or []],
                seed=seed,
                sampler="random",
                timeout_s=read_seconds(timeout),
                confirm_rounds=0,
                reuse=False,  # a table has the scores of every config's own pictures
                weights=read_weights(weights),
                scorer=scorer,
                device=device,
                isolation=read_isolation(isolation),
                baseline=baseline,
                command=shlex.join(["autotune", *sys.argv[1:]]),
            )
    made = of_study(folder)
    write_table(made, output)
    part = "all" if made.header.is_whole else "some"
    print(f"{output}: {len(made.rows)} configs, {part} of {made.header.allowed_configs or 'too many to count'}")
    spared = len(read_trials(StudyFolder(folder))) - len(made.rows)
    if spared:
        print(f"{spared} trials of the study are left out: no pictures of their own (see search --no-reuse)")


@app.command()
def replay(
    tables: Annotated[list[Path], typer.Argument(help="Tables that `autotune record` has written.")],
    samplers: Annotated[
        str, typer.Option(help="Which to compare, with commas between them.")
    ] = "auto,tpe,nsga2,random",
    seeds: Annotated[int, typer.Option(help="Searches by each sampler of each table.")] = 30,
    budget: Annotated[int, typer.Option(help="Trials of a search, the baseline among them.")] = 100,
    jobs: Annotated[int, typer.Option(help="Processes that share the work.")] = 1,
    warm_start: Annotated[
        list[Path] | None, typer.Option(help="A study or another table that every search is started warm by.")
    ] = None,
    reuse: Annotated[bool, typer.Option(help="Let the searches reuse earlier trials as `search` does.")] = True,
    thrift: Annotated[bool | None, typer.Option("--thrift/--no-thrift", hidden=True)] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder for replay.json, replay.md and replay.html.")
    ] = None,
) -> None:
    """Search recorded spaces at no cost, to compare samplers: the true front is known, random is the floor."""
    from autotune.report.page.replay import about, terminal_table, write_replay
    from autotune.research.replay.replay import check_replay, heads
    from autotune.research.replay.replay import replay as run

    check_replay(seeds, budget, jobs)
    names = [name.strip() for name in samplers.split(",") if name.strip()]
    with searches_bar() as listen:
        found = run(
            tables,
            samplers=names,
            seeds=seeds,
            budget=budget,
            jobs=jobs,
            warm_start=warm_start or [],
            reuse=reuse if thrift is None else thrift,
            listen=listen,
        )
    of = heads(tables)
    for name, (header, count) in of.items():
        console().print(about(name, header, count))
        console().print(terminal_table([one for one in found if one.table == name]))
    if output is not None:
        write_replay(output, found, of)
        print(f"{output / 'replay.html'}")
