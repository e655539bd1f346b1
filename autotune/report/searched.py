"""Searched: autotune.search() as users call it: the search, then its report in the study's folder."""

import functools
from typing import Any

from autotune.report.page.contact_sheet import contact_sheet
from autotune.report.page.page import write_report
from autotune.report.summary import read_summary
from autotune.tuning import search as tuning
from autotune.tuning.search import Result


@functools.wraps(tuning.search)
def search(*args: Any, **options: Any) -> Result:
    result = tuning.search(*args, **options)
    write_search_report(result)
    return result


def write_search_report(result: Result) -> None:
    """Write report.html, report.md and pictures.png into the study's folder."""
    summary = read_summary(result.folder)
    sheet = contact_sheet(summary.folder, result.best.pictures_of)
    if sheet is not None:
        sheet.save(summary.folder.pictures)
    write_report(summary)
