"""opponents: the sampler page's table of other samplers, read off reports/benchmarks/opponents.txt."""

import re
from pathlib import Path

FILE = Path(__file__).parent.parent.parent / "reports" / "benchmarks" / "opponents.txt"
NAMES = {
    "auto": "**auto**",
    "tpe": "Optuna's TPE",
    "ctpe": "c-TPE",
    "qlognehvi": "qLogNEHVI",
    "smac": "SMAC3",
    "hebo": "HEBO",
}
SPACES = {
    "demo-64": "the demo",
    "demo-64-batch-2": "the demo, batch 2",
    "flux-tiny": "a tiny Flux",
    "sdxl-tiny": "a tiny SDXL",
    "simulated": "simulated",
}
HEAD = """\
| space | sampler | searches | to 90 % | share at 20 | share at 40 | the pick, after | seconds a proposal |
|---|---|--:|---|---|---|---|--:|"""
SEARCHES, AT_10, PICK = 2, 4, 7  # columns of the file; AT_10 is left out


def table() -> str:
    """A row for each space and sampler of the file, of searches of 40 trials. Raises SystemExit where one has two."""
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in _lines()]
    order = {(row[0], row[1]): row for row in rows}
    if len(order) < len(rows):
        raise SystemExit(f"{FILE.name}: a space and sampler has two rows")
    made = [HEAD]
    for space in SPACES:
        first = True
        for sampler in NAMES:
            if (space, sampler) in order:
                row = order[space, sampler]
                cells = [SPACES[space] if first else "", NAMES[sampler], *row[2:AT_10], *row[AT_10 + 1 :]]
                made.append(f"| {' | '.join(cell.replace('inf', '>40') for cell in cells)} |")
                first = False
    return "\n".join([*made, *_together(order)])


def _together(rows: dict[tuple[str, str], list[str]]) -> list[str]:
    """For each sampler, in how many of all its searches the pick was found."""
    made = []
    for sampler, name in NAMES.items():
        of = [row for (_, other), row in rows.items() if other == sampler]
        found = sum(int(row[PICK].split(" of ")[0]) for row in of)
        searches = sum(int(row[SEARCHES]) for row in of)
        made.append(f"| {'' if made else 'together'} | {name} | {searches} |  |  |  | {found} of {searches} |  |")
    return made


def _lines() -> list[str]:
    return re.findall(rf"^\| (?:{'|'.join(SPACES)}) \|.*$", FILE.read_text(encoding="utf-8"), re.M)
