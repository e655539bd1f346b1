"""Tree: the listings of rooms and files in the docs, made from the first docstring line of each file.

python -m tools.tree           write docs/architecture.md
python -m tools.tree --check   only say whether it is out of date; exit code 1 if it is
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "autotune"
BEGIN, END = "<!-- made by python -m tools.tree -->", "<!-- end -->"


def first_line(path: Path) -> str:
    """What a Python file says of itself: the first line of its docstring, without the name in front and the stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = text.partition("\n")[0].rstrip(".")
    name = path.parent.name if path.name == "__init__.py" else path.stem.replace("_", "[ _]?")
    said, named = re.subn(rf"^{name}: ", "", line, flags=re.I)
    return said[:1].upper() + said[1:] if named and said.partition(" ")[0].isalpha() else said


def rooms() -> list[Path]:
    """The folders of the package that hold code, in the order of tests/test_layers.py."""
    tree = ast.parse((ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8"))
    order = next(ast.literal_eval(node.value) for node in tree.body if _assigns(node, "ROOMS"))
    return [PACKAGE / name for name in order if name != "nouns"]


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)


def nouns() -> list[Path]:
    return [PACKAGE / "__init__.py", *(p for p in sorted(PACKAGE.glob("*.py")) if p.name != "__init__.py")]


def columns(rows: list[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"{left:{width}}  {right}" for left, right in rows)


def listing_of_rooms() -> str:
    """One line a room, from the top to the bottom, then the nouns."""
    rows = [(f"{room.name}/", first_line(room / "__init__.py")) for room in rooms()]
    return columns([*rows, *((path.name, first_line(path)) for path in nouns())])


def listing_of_files() -> Iterator[str]:
    """A section a room: every file of it, folders last."""
    for room in rooms():
        yield f"## {room.name}\n\n{first_line(room / '__init__.py')}."
        files = sorted(room.rglob("*.py"), key=lambda path: (path.parent != room, path))
        rows = [(str(path.relative_to(room)), first_line(path)) for path in files if path != room / "__init__.py"]
        yield f"```\n{columns(rows)}\n```" if rows else ""
    yield "## The nouns"
    yield f"```\n{columns([(path.name, first_line(path)) for path in nouns()])}\n```"


def documents() -> dict[Path, str]:
    """Each document with its listing as it should be now."""
    rooms_first = f"## The rooms\n\n```\n{listing_of_rooms()}\n```"
    made = {ROOT / "docs" / "architecture.md": "\n\n".join([rooms_first, *filter(None, listing_of_files())])}
    return {path: _placed(path, listing) for path, listing in made.items()}


def _placed(path: Path, listing: str) -> str:
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"{path.name} has no place for its listing: put {BEGIN!r} and {END!r} into it")
    return f"{before}{BEGIN}\n{listing}\n{END}{after}"


def main() -> None:
    stale = [path for path, text in documents().items() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        if stale:
            raise SystemExit(f"out of date: {', '.join(path.name for path in stale)}; run python -m tools.tree")
        return
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
