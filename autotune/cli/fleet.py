"""Command fleet: many searches as one job, from a plan: pipelines x workloads x devices."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.exits import BAD_INPUT, resumable
from autotune.cli.options import Address, Workers
from autotune.errors import UserError


@app.command()
def fleet(
    plan: Annotated[list[Path], typer.Argument(help="A plan (TOML); after the word `status`: show how far it is.")],
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Search many pipelines, workloads and devices in the order of a plan, and compare them on one page at the end.

    The same command continues a fleet that was stopped.
    """
    from autotune.cluster.fleet import Cell, read_plan, run_fleet, statuses
    from autotune.report.merge import merge
    from autotune.report.page.page import write_merged
    from autotune.report.searched import search
    from autotune.report.terminal.fleet import status_table
    from autotune.report.terminal.show import PlainLines
    from autotune.report.terminal.theme import plain_console, show_heading
    from autotune.tuning.events import Event

    asks = len(plan) == 2 and plan[0] == Path("status")
    if len(plan) != 1 + asks:
        raise UserError("fleet takes one plan, or `status` and a plan.")
    whole = read_plan(plan[-1])
    if asks:
        plain_console().print(status_table(statuses(whole)))
        return

    def listen(cell: Cell, says: str) -> None:
        print(f"{cell.name}: {says}", flush=True)

    lines = PlainLines()

    def listen_to_search(event: Event) -> None:
        for line in lines.hear(event):
            print(line, flush=True)

    show_heading(plain_console(), "fleet", f"{len(whole.cells)} searches in {whole.folder}")
    command = shlex.join(["autotune", *sys.argv[1:]])
    one = partial(search, workers=workers, address=address, command=command, listen=listen_to_search)
    with resumable():
        done = run_fleet(whole, one, listen)
    found = statuses(whole)
    plain_console().print(status_table(found))
    if len(done) > 1:
        print("\n".join(map(str, write_merged(merge(done), whole.folder / "fleet.html"))))
    if any(status.state == "failed" for status in found):
        raise typer.Exit(BAD_INPUT)
