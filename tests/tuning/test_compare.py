"""compare(): two exported configs, interleaved, in real processes; bad input is refused before one starts."""

from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import measured, record
from searches import REQUESTED

from autotune.errors import UserError
from autotune.execution.interpreter import Interpreter, Package
from autotune.execution.runner import Runner
from autotune.measurement import Measurement, Phases
from autotune.report.terminal.trust import comparison_data, comparison_steps, comparison_words
from autotune.statistics import interleaved
from autotune.tuning.compare import compare
from autotune.tuning.export import export


def exported(folder: Path, name: str, values: dict[str, Any], **target: Any) -> Path:
    """A config of the demo as if it had been found by a search."""
    path = folder / f"{name}.json"
    trial, baseline = measured(1, values), measured(0)
    made = export(record(make_target(**target)), trial, baseline, None)
    few = made.workload.model_copy(update={"steps": 4})
    made.model_copy(update={"workload": few}).save(path)
    return path


@pytest.mark.usefixtures("children_are_forked")
def test_a_config_of_half_the_steps_is_faster_and_its_pictures_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaved, "MOST_TIMES", 1)  # three pairs, however wide their interval
    full, half = exported(tmp_path, "full", {"steps": 20}), exported(tmp_path, "half", {"steps": 4})
    heard: list[tuple[int, str]] = []
    REQUESTED.clear()
    seen = compare(full, half, device="cpu", listen=lambda number, which: heard.append((number, which.name)))
    assert set(REQUESTED.values()) == {"spawn"}, "as in production"
    assert seen.verdict.word == "FASTER"
    assert seen.verdict.speedup > 1.5
    assert heard[:4] == [(1, "full.json"), (1, "half.json"), (2, "half.json"), (2, "full.json")]
    assert seen.ssim_mean < 1
    assert "FASTER: the second is faster" in comparison_words(seen)


def test_configs_for_different_things_are_refused(tmp_path: Path) -> None:
    one, other = exported(tmp_path, "one", {}), exported(tmp_path, "other", {}, batch=2)
    with pytest.raises(UserError, match=r"different things.*batch 1, not 2"):
        compare(one, other, device="cpu")


def test_a_file_that_is_no_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no config"):
        compare(tmp_path / "none.json", tmp_path / "none.json", device="cpu")


def test_a_single_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no interval"):
        compare(tmp_path / "a.json", tmp_path / "b.json", rounds=1)


def environments() -> tuple[Interpreter, Interpreter]:
    """Two environments: the other has a newer torch, an older codec, and a package that nothing asks for."""
    python = Package("3.11.2", frozenset())

    def having(path: str, **versions: str) -> Interpreter:
        asked = {"torch": {"cudnn"}, "diffusers": {"torch"}, "transformers": {"torch", "regex"}}
        packages = {name: Package(version, frozenset(asked.get(name, ()))) for name, version in versions.items()}
        return Interpreter(path, "0.1.0", "f00", {**packages, "python": python})

    same = {"diffusers": "1", "pillow": "1"}
    return (
        having("/here/bin/python", torch="1", cudnn="8", transformers="1", regex="1", **same),
        having("/there/bin/python", torch="1", cudnn="9", transformers="2", regex="1", unused="1", **same),
    )


@pytest.fixture
def two_environments(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that are not real: text encoding takes twice as long there. Returns where each run took place."""
    here, there = environments()
    ran: list[str] = []
    monkeypatch.setattr("autotune.tuning.compare.own_interpreter", lambda: here)
    monkeypatch.setattr("autotune.tuning.compare.other_interpreter", lambda word: there)

    def run(runner: Runner, place: Path, config: Any, *, pictures: bool, earlier: Any) -> Measurement:
        factor = 2.0 if runner.interpreter else 1.0
        ran.append(runner.interpreter.path if runner.interpreter else "here")
        outcome = measured(0, latency_s=0.1 + 0.1 * factor).measured
        assert outcome is not None
        parts = Phases(text_encoding_s=0.1 * factor, denoising_step_s=0.01, vae_decode_s=0.02)
        return outcome.model_copy(update={"phases": parts})

    drawing = {"denoising": {"diffusers": 1.0}, "vae_decode": {"diffusers": 1.0}}
    seen = {"text_encoding": {"transformers": 1.0}, "vae_encode": {}, **drawing}
    monkeypatch.setattr(Runner, "run", run)
    monkeypatch.setattr(Runner, "packages", lambda runner, place, config: seen)
    return ran


def test_one_config_is_measured_in_two_environments_in_turn(two_environments: list[str], tmp_path: Path) -> None:
    seen = compare(exported(tmp_path, "a", {}), python="/there/bin/python", device="cpu", rounds=2)
    assert two_environments[:4] == ["here", "/there/bin/python", "/there/bin/python", "here"]
    assert seen.verdict.word == "SLOWER"
    assert [(p.name, p.first, p.second) for p in seen.packages] == [
        ("cudnn", "8", "9"),
        ("transformers", "1", "2"),
        ("unused", None, "1"),
    ]
    told = comparison_words(seen)
    assert "unused        not installed -> 1" in told
    assert "to blame" not in told
    assert comparison_steps(seen)[0][0].endswith("a.json --python /there/bin/python --bisect")


def test_the_slower_part_of_a_call_names_the_packages_that_run_in_it(
    two_environments: list[str], tmp_path: Path
) -> None:
    seen = compare(exported(tmp_path, "a", {}), python="/there", bisect=True, device="cpu", rounds=2)
    assert seen.parts is not None
    assert {part.part: (part.verdict.word, part.packages) for part in seen.parts} == {
        "text_encoding": ("SLOWER", ("cudnn", "transformers")),
        "denoising": ("SAME", ("cudnn",)),
        "vae_decode": ("SAME", ("cudnn",)),
    }
    lines = comparison_words(seen).splitlines()
    at = lines.index("text encoding is slower; packages that differ and run in it:")
    assert lines[at + 1] == "  transformers 1 -> 2", "what runs in no part that is as fast comes first"
    assert lines[at + 2] == (
        "  cudnn 8 -> 9 (not seen itself, one that runs asks for it; also in what is not slower: a denoising step, VAE "
        "decode)"
    ), "nothing was seen of it: it is named last, and so"
    assert [part.ran for part in seen.parts] == [("transformers",), (), ()]
    assert lines[-1].startswith("what can't be told")
    assert comparison_data(seen)["parts"][0]["verdict"]["word"] == "SLOWER"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "give a second config, or --python"),
        ({"second": "b.json", "python": "/there"}, "and not both"),
        ({"second": "b.json", "bisect": True}, "--bisect looks for"),
    ],
)
def test_an_environment_takes_the_place_of_a_second_config(how: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        compare(tmp_path / "a.json", **how)
