"""Searched: autotune.search() as users call it: the search, then its report in the study's folder."""

import functools
from typing import Any

from autotune.cluster.open import open_team
from autotune.report.page.contact_sheet import contact_sheet
from autotune.report.page.page import write_report
from autotune.report.summary import read_summary
from autotune.tuning import search as tuning
from autotune.tuning.search import Result


@functools.wraps(tuning.search)
def search(*args: Any, workers: int | str | None = None, address: str | None = None, **options: Any) -> Result:
    """As tuning.search; `workers` and `address`: run trials on several cards at the same time, see open_team."""
    with open_team(workers, address, options.get("device")) as team:
        result = tuning.search(*args, team=team, **options)
    write_search_report(result)
    return result


def write_search_report(result: Result) -> None:
    """Write report.html, report.md and pictures.png into the study's folder."""
    summary = read_summary(result.folder)
    sheet = contact_sheet(summary.folder, result.best.pictures_of)
    if sheet is not None:
        sheet.save(summary.folder.pictures)
    write_report(summary)
