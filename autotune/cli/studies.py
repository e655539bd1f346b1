"""Commands about studies: report, watch, table, merge, score, ablate (measure each knob of the pick)."""

import json
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.exits import STOPPED, resumable
from autotune.cli.options import JsonLines, Timeout


@app.command()
def report(study: Annotated[Path, typer.Argument(help="A study's folder, finished or not.")]) -> None:
    """Write report.html, a page that opens from disk, and report.md into the study's folder."""
    from autotune.report.page.page import write_report
    from autotune.report.summary import answer, next_steps, read_summary
    from autotune.report.terminal.theme import plain_console, show_heading, show_steps

    summary = read_summary(study)
    write_report(summary)
    show_heading(plain_console(), "report", summary.title)
    print(f"{answer(summary)}\n{summary.folder.report}\n{summary.folder.report_markdown}")
    show_steps(plain_console(), next_steps(summary))


@app.command()
def ablate(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    pick: Annotated[
        str | None,
        typer.Option(help="fastest, smallest, balanced, or a trial's number. Default: as in best.json."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Measure each knob at least this often, interleaved.")] = 3,
    timeout: Timeout = "30m",
) -> None:
    """Measure what each knob of the pick brings, and drop those that bring nothing from best.json.

    The same command continues an ablation that was stopped.
    """
    from autotune.goal import read_seconds
    from autotune.report.page.page import write_report
    from autotune.report.summary import next_steps, read_summary
    from autotune.report.terminal.theme import plain_console, show_heading, show_steps
    from autotune.report.terminal.trust import ablation_words, round_line
    from autotune.tuning.ablate import ablate as measure

    def listen(what: str, number: int) -> None:
        print(round_line(number, what), flush=True)

    show_heading(plain_console(), "ablate", str(study))
    with resumable():
        ablation = measure(study, pick=pick, rounds=rounds, timeout_s=read_seconds(timeout), listen=listen)
    print(ablation_words(ablation))
    summary = read_summary(study)
    write_report(summary)
    show_steps(plain_console(), next_steps(summary))


@app.command()
def score(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    metric: Annotated[
        list[str],
        typer.Option(help="NAME, NAME=MODEL (a hub id or folder), or FILE.py:FUNCTION, your own. Can be repeated."),
    ],
    run_code: Annotated[bool, typer.Option("--run-code", help="Allow FILE.py:FUNCTION to run.")] = False,
    device: Annotated[str | None, typer.Option(help="The device that the models run on. Default: cpu.")] = None,
    as_json: JsonLines = False,
) -> None:
    """Score the saved pictures of a study with other metrics, without running a trial.

    Metrics: clip_score, clip_image, pickscore, image_reward, ssim, psnr, lpips, worst_place, temporal (of clips).
    """
    from autotune.report.terminal.score import scores_data, scores_table
    from autotune.report.terminal.theme import plain_console
    from autotune.research.score import score as compute
    from autotune.study.record import read_trials
    from autotune.study_folder import StudyFolder

    results = compute(study, metric, run_code=run_code, device=device)
    configs = {trial.number: trial.config for trial in read_trials(StudyFolder(study))}
    for scored in results:
        if as_json:
            print(json.dumps(scores_data(scored, configs)))
        else:
            plain_console().print(scores_table(scored, configs))


@app.command()
def table(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    format: Annotated[str, typer.Option(help="csv, json, markdown or latex; with -o also parquet.")] = "csv",
    samples: Annotated[
        bool, typer.Option("--samples", help="One row a timed call, instead of one row a trial.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file. Default: standard output.")] = None,
) -> None:
    """Print a study as a table: one row a trial, with its knobs, figures, quality and outcome."""
    from autotune.report.table import formatted, samples_rows, trials_rows, write_table

    rows = (samples_rows if samples else trials_rows)(study)
    if output is None:
        print(formatted(rows, format), end="")
    else:
        write_table(rows, format, output)


@app.command()
def watch(study: Annotated[Path, typer.Argument(help="The folder of a search that is running.")]) -> None:
    """Show the progress of a running search in another terminal, until it ends."""
    from autotune.report.terminal.watch import show_watch

    try:
        show_watch(study)
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None


@app.command()
def merge(
    studies: Annotated[list[Path], typer.Argument(help="Folders of studies, of several devices or pipelines.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The page, an .html. The same as .md is written beside it.")
    ] = Path("comparison.html"),
) -> None:
    """Compare several studies on one page: what each technique brings in each, beside published figures."""
    from autotune.report.merge import merge as read
    from autotune.report.page.page import write_merged
    from autotune.report.terminal.theme import plain_console, show_heading

    merged = read(studies)
    written = write_merged(merged, output)
    show_heading(plain_console(), "merge", f"{len(studies)} studies")
    for title, _, sentence in merged.answers:
        print(f"{title}: {sentence}")
    print("\n".join(map(str, written)))
