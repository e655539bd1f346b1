"""knobs: the page of every setting, and the table of techniques, made from the knobs."""

import inspect
import re
from importlib import import_module
from pathlib import Path

from autotune.config import Value
from autotune.knob import Knob
from autotune.knobs import all_knobs
from tools.docs.sources import docstring, effects, reasons
from tools.docs.tried import sentence, where

ROOT = Path(__file__).parent.parent.parent
UNSEEN = "†"  # marks a value
HEAD = """# Knobs

A knob is one setting of a pipeline. The first value is the pipeline's own default. `autotune knobs --pipeline P` says
which values can act on your pipeline and device, and why the others can't. A word in capitals stands for what is found
there. Other packages can add knobs ([how](../../CONTRIBUTING.md#add-a-knob)).
"""


def page() -> str:
    """A section a knob, by the folders of `autotune/knobs/`, in the order in which knobs are applied."""
    knobs = {knob.name: (knob, _file(knob)) for knob in all_knobs().values()}
    folders = list(dict.fromkeys(path.parent for _, path in knobs.values()))
    parts = [HEAD + "\n" + table(link="")]
    for folder in sorted(folders):
        parts.append(f"## {folder.name.capitalize()}\n\n{_said(folder / '__init__.py')}")
        parts += [_section(knob, path) for knob, path in knobs.values() if path.parent == folder]
    return "\n\n".join(parts)


def table(*, link: str) -> str:
    """One row a knob: its values, what it sets, whether it changes the picture, where it has run.

    link  the page of the knobs
    """
    rows = [
        f"| [`{knob.name}`]({link}#{knob.name}) | {_values(knob)} | {knob.summary} | {_changes(knob)} | "
        f"{where(knob.name)} |"
        for knob in all_knobs().values()
    ]
    note = f"{UNSEEN} Not yet seen on a GPU: written from the library's source, tried with fakes or on a processor."
    return "\n".join(["| knob | values | what it sets | changes the picture |", "|---|---|---|---|", *rows, "", note])


def unseen(knob: Knob) -> set[str]:
    """The values that no GPU has seen, as the docstrings of the knob's file and of its methods' files say.

    "not yet [seen] on a GPU" stands for all values of the file but the default; ": NAME, NAME" after it names some.
    """
    found: set[str] = set()
    path = _file(knob)
    values = [_word(value) for value in knob.values[1:]]
    for file in (path, *_methods(path)):
        said = re.search(r"not\s+yet\s+(?:seen\s+)?on\s+a\s+GPU(?::\s+([^.]+))?\.", " ".join(docstring(file)), re.I)
        if said is not None:
            named = [name.strip('" \n') for name in said[1].split(",")] if said[1] else _of_file(file)
            found |= {value for value in values if named is None or value.partition(":")[0] in named or value in named}
    return found


def _of_file(file: Path) -> list[str] | None:
    """The names of the methods of a file; None: it is the knob's own."""
    if not file.name.startswith("_"):
        return None
    module = import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    return [method.name for method in getattr(module, "METHODS", None) or (module.METHOD,)]


def _file(knob: Knob) -> Path:
    """Where the knob is defined: the one file of its name below autotune/knobs."""
    return next((ROOT / "autotune" / "knobs").glob(f"*/{knob.name}.py"))


def _changes(knob: Knob) -> str:
    return ("by rounding" if knob.rounds else "yes") if knob.changes_output else "no"


def _section(knob: Knob, path: Path) -> str:
    about, more = docstring(path)
    files = [path, *_methods(path)]
    parts = [f"### {knob.name}", about, more]
    methods = [f"- {_said(file)}" for file in files[1:]]
    parts += ["\n".join(methods)] if methods else []
    facts = [f"- Values: {_values(knob)}"]
    facts += [f"- Acts only where [`{knob.modifies}`](#{knob.modifies}) is not at its default"] if knob.modifies else []
    facts += [f"- Changes the picture: {_changes(knob)}", f"- Applied at stage: {knob.stage.name.lower()}"]
    facts.append(f"- {sentence(knob.name)}")
    if knob.nearest:
        pairs = "; ".join(
            f"`{_word(v)}`: {', '.join(f'`{_word(o)}`' for o in other)}" for v, other in knob.nearest.items()
        )
        facts.append(f"- In production, where a value is not available: {pairs}")
    parts.append("\n".join(facts))
    for title, found in (
        ("Not available where", [r for f in files for r in reasons(f, ("why_not", "needs"))]),
        ("Does not go with", [r for f in files for r in reasons(f, ("clash",))]),
        ("Undone by a later change, which is refused", [r for f in files for r in reasons(f, ("undone_by",))]),
        ("Counted as its effect", [e for f in files for e in effects(f)]),
    ):
        lines = "\n".join(f"- {_escaped(text)}" for text in dict.fromkeys(found))
        parts += [f"{title}:\n\n{lines}"] if lines else []
    return "\n\n".join(part for part in parts if part)


def _nearest(knob: Knob) -> str:
    return "; ".join(
        f"`{_word(value)}` becomes {' or '.join(f'`{_word(other)}`' for other in others)}"
        for value, others in knob.nearest.items()
    )


def _methods(path: Path) -> list[Path]:
    """Files of the knob's folder that are methods of it: they define `METHOD`, or several `METHODS`.

    A knob has them where it imports `_methods`.
    """
    if "._methods import" not in path.read_text(encoding="utf-8"):
        return []
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(path.parent.glob("_*.py"))}
    return [file for file, text in texts.items() if "\nMETHOD = " in text or "\nMETHODS = " in text]


def _said(path: Path) -> str:
    said = docstring(path)[0]
    return said.partition(": ")[2] if path.name == "__init__.py" and ": " in said else said


def _values(knob: Knob) -> str:
    more = ", and others" if knob.also is not inspect.signature(Knob).parameters["also"].default else ""
    marked = unseen(knob)
    return ", ".join(f"`{_word(value)}`{UNSEEN if _word(value) in marked else ''}" for value in knob.values) + more


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")
