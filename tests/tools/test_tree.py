"""The listing of rooms and files is made from the code."""

from pathlib import Path

from tools.tree import documents, first_line

ROOT = Path(__file__).parent.parent.parent


def test_the_listings_of_rooms_and_files_are_those_of_the_code() -> None:
    """`python -m tools.tree` makes them."""
    made = documents()
    assert {path.name for path in made} == {"architecture.md"}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python -m tools.tree"


def test_every_file_has_its_own_words() -> None:
    code = [path for path in (ROOT / "autotune").rglob("*.py") if path.name != "__init__.py"]
    words = [first_line(path) for path in code]
    assert all(len(word.split()) >= 3 for word in words), [w for w in words if len(w.split()) < 3]
    assert len(set(words)) == len(words)
