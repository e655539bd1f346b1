"""inserts: parts of pages that are made from the code, from studies and from outputs that were recorded.

A page says where: `<!-- made by python -m tools.docs: NAME -->`, and `<!-- end -->` below it. NAME is one of INSERTS,
or `output FILE`, the output of a command as `make showcase` has recorded it in reports/showcase/FILE.txt; `output FILE
from TEXT` leaves out the lines between the command and the first that begins with TEXT.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from tools.docs import figures, knobs, opponents, tunes

ROOT = Path(__file__).parent.parent.parent
OUTPUTS = ROOT / "reports" / "showcase"
MARK = re.compile(r"<!-- made by python -m tools\.docs: (.+?) -->\n(.*?)<!-- end -->", re.S)


def filled(page: Path, text: str) -> str:
    """The page's text with its inserts as they are now. Raises SystemExit for a name that is unknown."""
    return MARK.sub(lambda found: f"{_opening(found[0])}\n{insert(found[1], page)}\n<!-- end -->", text)


def _opening(whole: str) -> str:
    return whole.partition("\n")[0]


def insert(name: str, page: Path) -> str:
    if name.startswith("output "):
        file, _, start = name.removeprefix("output ").partition(" from ")
        return output(file, start)
    if name not in INSERTS:
        raise SystemExit(f"{page.name}: nothing is called {name!r}; there are output FILE, {', '.join(INSERTS)}")
    return INSERTS[name](page)


def output(file: str, start: str = "") -> str:
    """A recorded output as a block, and below it when and where it was made.

    The file's first line begins with "# ": when and where. The second is the command, the others what it printed.
    """
    first, command, *lines = (OUTPUTS / f"{file}.txt").read_text(encoding="utf-8").splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith(start)), None)
    if begin is None:
        raise SystemExit(f"{file}.txt: no line begins with {start!r}")
    shown = [command, *(["..."] if begin else []), *lines[begin:]]
    return "\n".join(["```console", *shown, "```", "", f"*{first.removeprefix('# ')}*"])


def demo_words(page: Path) -> str:
    """What the study of the demo in reports/demo-cpu has found, in the words of its best.json."""
    best = json.loads((ROOT / "reports" / "demo-cpu" / "best.json").read_text(encoding="utf-8"))
    device, torch = best["device"]["name"], best["versions"]["torch"]
    return f"{best['about']}\n\n*The demo on {device}, torch {torch}, {best['created'][:10]}: `{best['command']}`*"


def _to_knobs(page: Path) -> str:
    up = "../" * (len(page.relative_to(ROOT).parts) - 1)
    return f"{up}docs/reference/knobs.md" if up != "../../" else "../reference/knobs.md"


INSERTS: dict[str, Callable[[Path], str]] = {
    "techniques": lambda page: knobs.table(link=_to_knobs(page)),
    "what it tunes": lambda page: tunes.table(link=_to_knobs(page)),
    "the demo's result": demo_words,
    "what was measured": figures.table,
    "opponents": lambda page: opponents.table(),
}
