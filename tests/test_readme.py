"""README and CONTRIBUTING tell the truth: listings are made from the code, commands exist with their options."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from autotune.cli import app
from autotune.knobs import all_knobs, check_value
from autotune.pipelines import presets
from autotune.production.tuned_config import TunedConfig
from autotune.tuning.export import export_from
from tools.tree import documents, first_line

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def section(title: str) -> str:
    """What stands between this heading and the next of its rank."""
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert match, f"the README has no section {title!r}"
    return match[1]


def blocks(text: str) -> list[str]:
    """The fenced blocks."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)


def test_the_listings_of_rooms_and_files_are_those_of_the_code() -> None:
    """`python -m tools.tree` makes them."""
    made = documents()
    assert {path.name for path in made} == {"README.md", "architecture.md"}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python -m tools.tree"


def test_every_file_has_its_own_words() -> None:
    code = [path for path in (ROOT / "autotune").rglob("*.py") if path.name != "__init__.py"]
    words = [first_line(path) for path in code]
    assert all(len(word.split()) >= 3 for word in words), [w for w in words if len(w.split()) < 3]
    assert len(set(words)) == len(words)


def test_documents_link_to_files_that_exist() -> None:
    for document in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "glossary.md", ROOT / "docs" / "architecture.md"):
        targets = re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8"))
        here = [target for target in targets if not target.startswith("http")]
        assert [t for t in here if not (document.parent / t.split("#")[0]).exists()] == []


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:autotune|tests|tools|docs)/[\w./]+\.(?:py|md))`", text))
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def spoken() -> list[str]:
    """Every command line that the README shows: in its fenced blocks, and in `single backticks`."""
    fenced = [line.strip().removeprefix("$ ") for block in blocks(README) for line in block.splitlines()]
    outside = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    inline = re.findall(r"`([^`\n]+)`", outside)
    return [line.partition("  #")[0].strip() for line in [*fenced, *inline]]


def test_every_make_target_that_the_readme_names_exists() -> None:
    named = {match[1] for line in spoken() if (match := re.fullmatch(r"make ([\w-]+)", line))}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):(?!=)", makefile, re.M))
    assert {"demo", "test"} <= named
    assert named <= targets


def autotune_lines() -> list[list[str]]:
    """The commands `autotune ...`; those with "..." in them leave something out on purpose."""
    lines = [line for line in spoken() if re.match(r"autotune [a-z]+( |$)", line) and "..." not in line]
    return [shlex.split(line)[1:] for line in lines]


def test_the_readme_shows_every_command() -> None:
    assert {words[0] for words in autotune_lines()} == set(COMMANDS)


@pytest.mark.parametrize("words", autotune_lines(), ids=" ".join)
def test_a_command_in_the_readme_can_be_read_by_the_command_line(words: list[str]) -> None:
    command = COMMANDS[words[0]]
    context = command.make_context(words[0], list(words[1:]))
    assert context.args == []
    if "pipeline" in context.params:
        assert context.params["pipeline"] in presets()


def test_the_readme_names_every_option_of_search_and_only_real_ones() -> None:
    shown = [option for option in COMMANDS["search"].params if not getattr(option, "hidden", False)]
    real = {name for option in shown for name in option.opts if name.startswith("--")}
    options = [option for command in COMMANDS.values() for option in command.params]
    everywhere = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", section("Use")))
    assert named <= everywhere
    assert real - named - {"--pipeline"} == set()
    assert "--pipeline" in named


def test_knobs_and_values_in_the_readme_exist() -> None:
    pairs = re.findall(r"--fix (\w+)=(\w+)", README)
    assert pairs
    for name, value in pairs:
        check_value(name, value)
    assert set(re.findall(r"--exclude (\w+)", README)) <= set(all_knobs())


def test_links_to_files_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith("http")]
    assert targets
    assert [target for target in targets if not (ROOT / target.split("#")[0]).exists()] == []


def test_the_study_that_the_readme_shows_can_still_be_read_and_exported() -> None:
    study = ROOT / "reports" / "demo-cpu"
    best = TunedConfig.load(study / "best.json")
    again = export_from(study, "fastest")
    assert (again.knobs, again.confirmation) == (best.knobs, best.confirmation)
    assert again.tuned == best.tuned
    assert again.pictures == best.pictures
    assert best.about.split(" (")[0] in README
