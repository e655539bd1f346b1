"""messages: the page of every sentence with which a command refuses or ends, read off the code."""

import ast
import re
from pathlib import Path

from tools.docs.sources import texts

ROOT = Path(__file__).parent.parent.parent
HEAD = """# Messages

Every sentence with which autotune refuses an input or ends a command (exit code 2). Each says what was wrong, what was
given and what to do. A word in capitals stands for what is found there, so search for the words between. Longer advice:
[Troubleshooting](../troubleshooting.md). Why a value of a setting is not available: [Knobs](knobs.md). Causes of failed
trials: [Outcomes](outcomes.md).
"""
SHORTEST = 2  # words: what is shorter is a part of another sentence


def page() -> str:
    """A section a room of the package, its sentences in alphabetical order."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "autotune").rglob("*.py")):
        room = path.relative_to(ROOT / "autotune").parts[0].removesuffix(".py")
        found.setdefault(room, set()).update(sentences(path))
    lists = {room: "\n".join(f"- {_cell(s)}" for s in sorted(of, key=_first)) for room, of in found.items()}
    return "\n\n".join([HEAD.rstrip(), *(f"## {room}\n\n{lines}" for room, lines in lists.items() if lines)])


def sentences(path: Path) -> list[str]:
    """The first arguments of the file's `UserError(...)`s, and of its own kinds of it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    kinds = {node.name for node in classes if "UserError" in map(ast.unparse, node.bases)}
    calls = [node for node in nodes if isinstance(node, ast.Call) and node.args]
    raised = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in {"UserError", *kinds}]
    said = [text for call in raised for text in texts(call.args[0])]
    return [text for text in said if len(re.findall(r"[a-z']+", text)) >= SHORTEST]


def _first(sentence: str) -> tuple[str, str]:
    """Sorted by the first words that are always the same, then by the whole."""
    return re.sub(r"^[^a-z-]+", "", sentence), sentence


def _cell(text: str) -> str:
    return re.sub(r"([*_<])", r"\\\1", " ".join(text.split()))
