"""sources: what a Python file says in its docstring, and the sentences that its functions return."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ALIGNED = re.compile(r"^ *\S[\S ,]{0,40}?  +\S", re.M)  # a name, two spaces at least, and a meaning


def docstring(path: Path) -> tuple[str, str]:
    """The first line without the name in front and the full stop; the other paragraphs, as they stand."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first, _, rest = text.partition("\n\n")
    said = re.sub(rf"^{path.stem}: ", "", " ".join(first.split()))
    return said, rest


def with_lists(text: str) -> str:
    """A docstring as Markdown: a paragraph whose names and meanings are aligned by spaces becomes a block."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(f"```text\n{p}\n```" if ALIGNED.search(p) else p for p in paragraphs)


def reasons(path: Path, functions: tuple[str, ...]) -> list[str]:
    """Every text that these functions of the file, or functions in it whose names begin with them, can return."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.lstrip("_").startswith(functions)]
    found = [text for function in named for text in _returned(function)]
    return list(dict.fromkeys(found))


def effects(path: Path) -> list[str]:
    """What the file's `Effect(...)`s count, in words."""
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Effect"]
    whats = [keyword.value for call in made for keyword in call.keywords if keyword.arg == "what"]
    return list(dict.fromkeys(text for what in whats for text in texts(what)))


def _returned(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from texts(node.value)


def texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression can be; what is put into a text stands in it as a name in capitals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(_part(value) for value in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from texts(value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "lacks":
        named = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        yield from (f"the package {name} is not installed: pip install {name}" for name in named)


def _part(node: ast.expr) -> str:
    """A constant part as it stands; of what is put in, the name of the value, without the functions around it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    inside = node.value if isinstance(node, ast.FormattedValue) else node
    if isinstance(inside, ast.Call) and isinstance(inside.func, ast.Name) and inside.func.id == "nearest":
        return "NEAREST"  # the nearest word that is known
    called = {id(n.func) for n in ast.walk(inside) if isinstance(n, ast.Call)}
    nodes = [n for n in ast.walk(inside) if isinstance(n, ast.Attribute | ast.Name) and id(n) not in called]
    names = [n.attr if isinstance(n, ast.Attribute) else n.id for n in nodes]
    return names[0].strip("_").replace("_", " ").upper() if names else "..."
