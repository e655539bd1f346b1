"""Commands for research: record (measure a whole space into a table), replay (search recorded tables)."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.exits import end_early, resumable
from autotune.cli.grouped import grouped
from autotune.cli.options import (
    Baseline,
    Call,
    DeviceName,
    Exclude,
    Fix,
    IsolationWord,
    JsonLines,
    MaxQualityDrop,
    Model,
    Prompts,
    ReuseFlag,
    Scorer,
    Space,
    ThriftFlag,
    Timeout,
    Workloads,
    at_least_one,
    read_fixes,
    read_isolation,
)
from autotune.errors import UserError

EVERYTHING = 10**9  # a budget of trials that no space exceeds


@app.command()
@grouped
def record(
    model: Model,
    calls: Call,
    *,
    sample: Annotated[
        int | None,
        typer.Option(help="Measure this many random configs, the baseline and the recipes among them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Measure every config that the rules allow.")] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="The table, a .parquet.")] = Path("recording.parquet"),
    of: Annotated[
        Path | None, typer.Option("--from", help="The folder of a study: write its trials as a table, measure nothing.")
    ] = None,
    study: Annotated[Path | None, typer.Option(help="The folder of the trials. Default: beside the table.")] = None,
    space: Space = None,
    fix: Fix = None,
    exclude: Exclude = None,
    max_quality_drop: MaxQualityDrop = None,
    prompts: Prompts = None,
    workload: Workloads = None,
    seed: Annotated[int, typer.Option(help="Of the start noise and of the order of the trials.")] = 0,
    timeout: Timeout = "30m",
    time_budget: Annotated[
        str | None, typer.Option(help="Start no trial that would end after this long; the table has those that ended.")
    ] = None,
    scorer: Scorer = None,
    device: DeviceName = None,
    isolation: IsolationWord = None,
    baseline: Baseline = "default",
    as_json: JsonLines = False,
) -> None:
    """Measure a whole space, or a random part of it, and write a table (Parquet) for research and for `replay`.

    The trials are a study in random order: the same command continues a recording that was stopped.
    """
    from autotune.goal import read_seconds
    from autotune.recordings.from_study import recording_of
    from autotune.recordings.parquet import check_table_path, write_table
    from autotune.report.terminal.record import recording_words
    from autotune.report.terminal.show import show_search
    from autotune.study.record import read_trials
    from autotune.study_folder import StudyFolder
    from autotune.workload import read_workload

    check_table_path(output)
    at_least_one({"--sample": sample, "--steps": calls.steps, "--batch": calls.batch})
    if [of is not None, sample is not None, everything].count(True) != 1:
        raise UserError("give one of --sample N, --all and --from STUDY.")
    folder, held = of, None
    if folder is None:
        with resumable():
            result = show_search(
                as_json=as_json,
                **model.arguments,
                **calls.arguments,
                budget=sample or EVERYTHING,
                study=study or output.with_suffix(""),
                time_budget_s=read_seconds(time_budget) if time_budget else None,
                space=space,
                fix=read_fixes(fix or []),
                exclude=exclude or [],
                max_quality_drop=max_quality_drop,
                prompts=prompts,
                workloads=[read_workload(text) for text in workload or []],
                seed=seed,
                sampler="random",
                timeout_s=read_seconds(timeout),
                confirm_rounds=0,
                listed_only=True,  # a whole space has an end, and every sampler can propose what is in it
                reuse=False,  # a table has the scores of each config's own pictures
                scorer=scorer,
                device=device,
                isolation=read_isolation(isolation),
                baseline=baseline,
                command=shlex.join(["autotune", *sys.argv[1:]]),
            )
        folder, held = result.folder, result.held
    recording = recording_of(folder)
    write_table(recording, output)
    print(recording_words(output, recording, trials=len(read_trials(StudyFolder(folder)))))
    end_early(held)


@app.command()
def replay(
    tables: Annotated[list[Path], typer.Argument(help="Tables that `autotune record` has written.")],
    samplers: Annotated[
        str, typer.Option(help="The samplers to compare, with commas between them.")
    ] = "auto,tpe,nsga2,random",
    seeds: Annotated[int, typer.Option(help="Searches of each table by each sampler.")] = 30,
    budget: Annotated[int, typer.Option(help="Trials of each search, the baseline among them.")] = 100,
    jobs: Annotated[int, typer.Option(help="Parallel processes.")] = 1,
    warm_start: Annotated[
        list[Path] | None, typer.Option(help="A study or another table that orders the first trials of every search.")
    ] = None,
    reuse: ReuseFlag = True,
    thrift: ThriftFlag = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder of replay.json, replay.md and replay.html.")
    ] = None,
) -> None:
    """Compare samplers on recorded spaces, where the true Pareto front is known. Nothing is measured."""
    from autotune.report.page.replay import about, terminal_table, write_replay
    from autotune.report.terminal.progress import searches_bar
    from autotune.report.terminal.theme import plain_console
    from autotune.research.replay.replay import check_replay, heads
    from autotune.research.replay.replay import replay as run

    check_replay(seeds, budget, jobs)
    names = [name.strip() for name in samplers.split(",") if name.strip()]
    with searches_bar() as listen:
        replayed = run(
            tables,
            samplers=names,
            seeds=seeds,
            budget=budget,
            jobs=jobs,
            warm_start=warm_start or [],
            reuse=reuse if thrift is None else thrift,
            listen=listen,
        )
    recordings = heads(tables)
    for name, (header, count) in recordings.items():
        plain_console().print(about(name, header, count))
        plain_console().print(terminal_table([result for result in replayed if result.table == name]))
    if output is not None:
        write_replay(output, replayed, recordings)
        print(f"{output / 'replay.html'}")
