"""tried: on which devices `python -m autotune.compat` has run a knob's values, by the reports that are here."""

import json
from pathlib import Path

REPORTS = Path(__file__).parent.parent.parent / "reports"
CPU, GPU = "a CPU", "a GPU"


def tried(knob: str, reports: Path = REPORTS) -> dict[str, list[str]]:
    """CPU and GPU -> the knob's values that worked there alone on a tiny pipeline. A value as the report writes it."""
    found: dict[str, list[str]] = {CPU: [], GPU: []}
    for path in sorted(reports.glob("compat-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        values = found[CPU if record["device"]["kind"] == "cpu" else GPU]
        for pipeline in record["pipelines"].values():
            for name, verdict in pipeline["singles"].items():
                of, _, value = name.partition("=")
                if of == knob and verdict["outcome"] == "fine" and value not in values:
                    values.append(value)
    return found


def where(knob: str, reports: Path = REPORTS) -> str:
    """The devices, for a cell of a table."""
    return " and ".join(device for device, values in tried(knob, reports).items() if values) or "not yet"


def sentence(knob: str, reports: Path = REPORTS) -> str:
    """The values that were run on each, as a line of the knob's own section."""
    told = [
        f"on {device}: {', '.join(f'`{value}`' for value in values)}" if values else f"on {device}: none yet"
        for device, values in tried(knob, reports).items()
    ]
    return f"Run on tiny pipelines by `python -m autotune.compat`, {'; '.join(told)}"
