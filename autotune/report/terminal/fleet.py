"""How far the searches of a fleet are, as a table."""

from collections.abc import Sequence

from rich.table import Table

from autotune.cluster.fleet import Status


def status_table(statuses: Sequence[Status]) -> Table:
    """A row for each search of the plan."""
    table = Table("search", "state", "trials", "why", box=None, pad_edge=False)
    for status in statuses:
        table.add_row(status.cell.name, status.state, f"{status.trials} of {status.budget}", status.why or "")
    return table
