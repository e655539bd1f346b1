"""hook: what MkDocs needs so that the pages read the same in the repository and on the site.

CHANGELOG.md and CONTRIBUTING.md become pages. A link from a page to a file of the repository outside of docs/ leads to
a copy of that file, which becomes part of the site. A link to what is not there stays as it is, and
`mkdocs build --strict` fails on it.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
ROOT_PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
COPIES = "repository"
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)]*)?(\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie in the root, and the files that any page links to."""
    for page, source in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=from_root(text)))
    pages = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    for path in sorted({path for page, text in pages for path in outside(page, text)}):
        files.append(File.generated(config, copy_of(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside of docs/ lead to their copies."""
    return LINK.sub(
        lambda found: f"{found[1]}{_copied(page.file.src_uri, found[2])}{found[3] or ''}{found[4]}", markdown
    )


def from_root(text: str) -> str:
    """The text of a page in the root, with its links as they are from docs/."""

    def moved(target: str) -> str:
        pages = {source: page for page, source in ROOT_PAGES.items()}
        return pages.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}")

    return LINK.sub(lambda found: f"{found[1]}{moved(found[2])}{found[3] or ''}{found[4]}", text)


def copy_of(path: str) -> str:
    """Where a file of the repository lies in the site. Markdown stays text: its own links lead elsewhere."""
    return f"{COPIES}/{path}.txt" if path.endswith(".md") else f"{COPIES}/{path}"


def outside(page: str, text: str) -> Iterator[str]:
    """The files outside of docs/ to which a page links, as paths in the repository."""
    for found in LINK.finditer(text):
        path = _in_repository(page, found[2])
        if path is not None and path not in ROOT_PAGES.values() and (ROOT / path).is_file():
            yield path


def _in_repository(page: str, target: str) -> str | None:
    """The path in the repository of a link's target, if it lies outside of docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith(("docs/", "..")) or path == "docs" else path


def _copied(page: str, target: str) -> str:
    path = _in_repository(page, target)
    if path in ROOT_PAGES.values():
        return os.path.relpath(next(p for p, s in ROOT_PAGES.items() if s == path), posixpath.dirname(page) or ".")
    if path is None or not (ROOT / path).is_file():
        return target
    return os.path.relpath(copy_of(path), posixpath.dirname(page) or ".")
