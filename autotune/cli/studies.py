"""report, watch, table, merge, score, ablate: what a study's folder tells, and what can be added to it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.terminal import console, heading, resumable, show_steps
from autotune.errors import UserError


@app.command()
def report(study: Annotated[Path, typer.Argument(help="A study's folder, finished or not.")]) -> None:
    """Write report.html, a page that opens from disk, and report.md into the study's folder."""
    from autotune.report.page.page import write_report
    from autotune.report.summary import answer, next_steps, read_summary

    summary = read_summary(study)
    write_report(summary)
    heading("report", summary.title)
    print(f"{answer(summary)}\n{summary.folder.report}\n{summary.folder.report_markdown}")
    show_steps(next_steps(summary))


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
    from autotune.goal import read_seconds
    from autotune.report.page.page import write_report
    from autotune.report.summary import next_steps, read_summary
    from autotune.report.terminal.trust import ablation_words
    from autotune.tuning.ablate import ablate as measure

    def listen(what: str, number: int) -> None:
        print(f"round {number}: {what}", flush=True)

    heading("ablate", str(study))
    with resumable():
        made = measure(study, pick=pick, rounds=rounds, timeout_s=read_seconds(timeout), listen=listen)
    print(ablation_words(made))
    summary = read_summary(study)
    write_report(summary)
    show_steps(next_steps(summary))


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
    from autotune.report.terminal.score import scores_data, scores_table
    from autotune.research.score import score as take
    from autotune.study.record import read_trials
    from autotune.study_folder import StudyFolder

    taken = take(study, metric, run_code=run_code, device=device)
    configs = {trial.number: trial.config for trial in read_trials(StudyFolder(study))}
    for scored in taken:
        if as_json:
            print(json.dumps(scores_data(scored, configs)))
        else:
            console().print(scores_table(scored, configs))


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
    from autotune.frozen_model import write_text
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
    from autotune.report.terminal.watch import show_watch

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
    from autotune.frozen_model import write_text
    from autotune.report.markdown import merged_markdown
    from autotune.report.merge import merge as read
    from autotune.report.page.page import merged_page

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
