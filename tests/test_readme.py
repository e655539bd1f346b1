"""The README tells the truth: its list of files is the disk's, and its commands exist with their options."""

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


def listed() -> dict[str, str]:
    """Path -> its line in the architecture section."""
    lines = [line for block in blocks(section("Architecture")) for line in block.splitlines() if line.strip()]
    found = [re.fullmatch(r"(\S+)  +(\S.*)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    pairs = [(match[1], match[2]) for match in found if match]
    assert len({path for path, _ in pairs}) == len(pairs), "a file is listed twice"
    return dict(pairs)


def test_the_architecture_section_lists_every_file_and_nothing_else() -> None:
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "autotune").rglob("*.py")}
    spaces = {str(path.relative_to(ROOT)) for path in (ROOT / "search_spaces").iterdir()}
    assert set(listed()) == code | spaces


def test_every_file_has_its_own_words() -> None:
    words = listed().values()
    assert all(len(word) >= 8 for word in words)
    assert len(set(words)) == len(words)


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
    real = {name for option in COMMANDS["search"].params for name in option.opts if name.startswith("--")}
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
