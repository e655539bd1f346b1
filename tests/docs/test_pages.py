"""The pages tell the truth: what is generated is as the code is, links lead somewhere, and nothing is missing."""

import importlib
import json
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import yaml

from autotune import isolation
from autotune.knobs import filled
from autotune.production.tuned_config import TunedConfig
from autotune.recordings.parquet import _TYPES
from autotune.report.table import samples_rows, trials_rows
from autotune.trial import Cause
from autotune.tuning.export import export_from
from tools.docs import columns, messages, outcomes
from tools.docs.__main__ import documents
from tools.docs.fences import FENCE, ROOT, blocks, pages
from tools.docs.inserts import MARK, OUTPUTS
from tools.docs.tunes import FOUND, GROUPS, PIPELINES

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = ROOT / "reports" / "demo-cpu"


def test_the_readme_is_short_and_in_order() -> None:
    assert len(README.splitlines()) <= 200
    headings = re.findall(r"^## (.*)$", README, re.M)
    assert headings == [
        "Try it: no GPU, no network, no account",
        "What you get",
        "Load it in production",
        "What it tunes",
        "How fast, how sure",
        "How it compares",
        "Where to read on",
        "Licence",
    ]


def test_the_badges_are_true() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"python-{project['requires-python'].removeprefix('>=')}%2B" in README
    assert f"licence-{project['license'].replace('-', '--')}" in README
    systems = [line for line in project["classifiers"] if line.startswith("Operating System")]
    assert [line.rpartition(" :: ")[2] for line in systems] == re.findall(r"platform-(\w+)", README)


def test_what_is_generated_is_as_the_code_is() -> None:
    """`python -m tools.docs` makes it."""
    for path, text in documents().items():
        assert path.exists(), path
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)}: run python -m tools.docs"


def test_every_output_of_autotune_that_a_page_shows_was_recorded() -> None:
    """A block with a command and lines below it lies between the marks of an insert."""
    for page in pages():
        bare = MARK.sub("", page.read_text(encoding="utf-8"))
        for found in FENCE.finditer(bare):
            lines = found[3].splitlines()
            assert found[2] != "console" or all(line.startswith("$ ") for line in lines if line), (page, lines)


def test_every_recorded_output_says_when_and_where_and_is_shown() -> None:
    texts = [page.read_text(encoding="utf-8") for page in pages()]
    shown = {name for text in texts for name in re.findall(r"tools\.docs: output (\S+).*? -->", text)}
    files = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in OUTPUTS.glob("*.txt")}
    assert shown == set(files)
    assert all(re.match(r"# \d{4}-\d\d-\d\d", lines[0]) and lines[1].startswith("$ ") for lines in files.values())


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", FENCE.sub("", text)):
        path, _, anchor = (target[0] or target[1]).partition("#")
        if path.startswith(("http", "mailto")):
            continue
        # contributing.md and changelog.md are made from the files in the root, see tools/docs/hook.py
        root = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
        other = page if not path else (page.parent / path).resolve()
        other = ROOT / root[other.name] if other.parent == ROOT / "docs" and other.name in root else other
        assert other.is_file(), f"{page.name}: {path}"
        if anchor and other.suffix == ".md":
            assert anchor in anchors(other), f"{page.name}: {path}#{anchor}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    bare = [re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower() for heading in headings]
    return {re.sub(r"[\s]+", "-", heading) for heading in bare}


def test_the_site_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"^\s+- (?:\w+: )?([\w/-]+\.md)$", text, re.M))
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert named == there | {"contributing.md", "changelog.md"}
    assert yaml.safe_load(re.sub(r"!!\S+", "", text))["docs_dir"] == "docs"


def test_every_cause_and_variable_is_explained() -> None:
    assert set(outcomes.CAUSES) == set(get_args(Cause))
    code = [path.read_text(encoding="utf-8") for path in (ROOT / "autotune").rglob("*.py")]
    ours = {name for text in code for name in re.findall(r'"(AUTOTUNE_[A-Z_]+)"', text)}
    between = set(re.findall(r'"(AUTOTUNE_[A-Z_]+)"', Path(isolation.__file__).read_text(encoding="utf-8")))
    assert ours - between <= set(outcomes.READ)
    assert {f"`{name}`" for name in between} <= set(re.findall(r"`AUTOTUNE_\w+`", outcomes.environment_page()))
    assert len(outcomes.exit_codes()) == 7


def test_every_column_is_explained() -> None:
    def known(rows: list[str]) -> set[str]:
        return {"knob_*" if name.startswith("knob_") else name for name in rows}

    assert known(list(trials_rows(DEMO)[0])) == set(columns.TRIALS)
    assert known(list(samples_rows(DEMO)[0])) == set(columns.SAMPLES)
    assert {"knob_*", *_TYPES} == set(columns.RECORDED)


def test_every_knob_has_a_group_or_is_a_detail_of_one() -> None:
    """The table in the README leaves out only knobs that refine another, or that are too small for a row."""
    from autotune.knobs import all_knobs

    rows = {knob for knobs in GROUPS.values() for knob in knobs}
    assert rows <= set(all_knobs())
    left_out = {name for name, knob in all_knobs().items() if knob.modifies is None} - rows
    assert left_out <= {"memory_format", "conv1x1_as_linear", "scheduler_sync"}, (
        "give it a group in tools/docs/tunes.py"
    )
    assert list(json.loads(FOUND.read_text(encoding="utf-8"))) == sorted(PIPELINES)


def test_every_promise_is_held_by_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "trust" / "promises.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    assert len(named) > 20
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), f"{file}::{test}"


def test_names_of_python_in_the_reference_exist() -> None:
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    for name in re.findall(r"^::: (\S+)$", text, re.M):
        module, _, member = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), member), name


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:autotune|tests|tools|docs)/[\w./]+\.(?:py|md))`", text))
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_study_that_the_docs_show_can_still_be_read_and_exported() -> None:
    best = TunedConfig.load(DEMO / "best.json")
    again = export_from(DEMO, "fastest")
    assert filled(again.knobs) == filled(best.knobs), "with knobs that are newer than the study at their defaults"
    assert again.confirmation == best.confirmation
    assert again.tuned == best.tuned
    assert again.pictures == best.pictures
    assert best.about.split(" (")[0].removesuffix(" the baseline's speed") in README
    assert list(blocks(ROOT / "README.md"))


def test_every_sentence_of_an_error_can_be_found() -> None:
    """As the command line prints it: the words of the page's line, in order, with what was given between them."""
    lines = [line[2:].replace("\\", "") for line in messages.page().splitlines() if line.startswith("- ")]
    parts = [re.split(r"[A-Z][A-Z ]+|\.\.\.", line) for line in lines]
    patterns = [re.compile(".*".join(map(re.escape, fixed))) for fixed in parts]
    assert len(patterns) > 250
    for said in (
        "unknown sampler 'bogus': did you mean 'auto'?",
        "--fix takes KNOB=VALUE such as dtype=bf16, not 'dtype'.",
        "the budget is 0 trials; give at least 1, which is the baseline.",
        "'here' is not a study folder (no study.json in it).",
    ):
        assert any(pattern.search(said) for pattern in patterns), said
