"""Main: writes the reference and the inserts of the pages.

python -m tools.docs           write docs/reference and the inserts in README.md and docs
python -m tools.docs --check   only say which files are out of date; exit code 1 if one is
"""

import sys
from pathlib import Path

from tools.docs import columns, command_line, knobs, messages, outcomes, presets, schema
from tools.docs.inserts import ROOT, filled

MADE = "<!-- Made by python -m tools.docs from the code. Changes by hand are lost. -->"
REFERENCE = {
    "command-line.md": command_line.page,
    "knobs.md": knobs.page,
    "schema.md": schema.page,
    "outcomes.md": outcomes.outcomes_page,
    "messages.md": messages.page,
    "presets.md": presets.page,
    "tables.md": columns.page,
    "environment.md": outcomes.environment_page,
}


def documents() -> dict[Path, str]:
    """Each file with its text as it should be now."""
    made = {ROOT / "docs" / "reference" / name: f"{page()}\n\n{MADE}\n" for name, page in REFERENCE.items()}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    others = {path: filled(path, path.read_text(encoding="utf-8")) for path in pages if path not in made}
    return made | others


def stale() -> list[Path]:
    return [p for p, text in documents().items() if not p.exists() or p.read_text(encoding="utf-8") != text]


def main() -> None:
    old = stale()
    if "--check" in sys.argv[1:]:
        if old:
            names = ", ".join(str(path.relative_to(ROOT)) for path in old)
            raise SystemExit(f"out of date: {names}; run python -m tools.docs")
        return
    for path, text in documents().items():
        if path in old:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
