"""autotune run: which pictures the options plan, and that they are drawn, with a config and with a chain."""

from pathlib import Path

import pytest
from conftest import make_target
from made_up import measured, record
from PIL import Image

from autotune.devices import find_device
from autotune.errors import UserError
from autotune.measurement import ChainCost
from autotune.production import chain, run
from autotune.production.chain import ChainConfig
from autotune.production.run import CLIPS, FORMATS, Plan, _check, draw, of_clips, plan
from autotune.production.tuned_config import TunedConfig
from autotune.tuning.export import export


def planned(prompt: str | None = "a red circle", file: Path | None = None, **more: object) -> Plan:
    options = {"count": 1, "seed": 0, "output": Path("out.png"), "out": None} | more
    return plan(prompt, file, **options)  # type: ignore[arg-type]


def test_one_prompt_is_one_picture_in_a_file() -> None:
    assert planned() == Plan(("a red circle",), (0,), (Path("out.png"),))


def test_many_pictures_have_a_folder_and_a_seed_each(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    seen = planned(None, tmp_path / "prompts.txt", count=2, seed=5, out=tmp_path / "new")
    assert seen.prompts == ("one", "one", "two", "two")
    assert seen.seeds == (5, 6, 7, 8)
    assert [path.name for path in seen.outputs] == ["000.png", "001.png", "002.png", "003.png"]
    assert not (tmp_path / "new").exists(), "nothing is made before everything is checked"


def test_a_seed_of_the_file_wins(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "one", "seed": 70}\n{"prompt": "two"}\n')
    assert planned(None, tmp_path / "prompts.jsonl", count=2, out=tmp_path).seeds == (70, 71, 2, 3)


def test_a_clip_whose_file_the_user_has_not_named_is_an_animated_webp(tmp_path: Path) -> None:
    assert of_clips(planned(output=None)).outputs == (Path("out.webp"),)
    assert planned(output=None).outputs == (Path("out.png"),)
    assert of_clips(planned(output=Path("mine.gif"))).outputs == (Path("mine.gif"),)
    assert [path.name for path in of_clips(planned(count=2, out=tmp_path)).outputs] == ["000.webp", "001.webp"]


def test_a_file_that_a_clip_can_not_be_is_refused_and_an_mp4_where_no_library_writes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match=r"'a.jpg' is not a clip file: end its name in .webp, .gif, .png, .mp4"):
        _check(planned(output=Path("a.jpg")), CLIPS)
    with pytest.raises(UserError, match=r"'a.gif' is not a picture file"):
        _check(planned(output=Path("a.gif")), FORMATS)
    monkeypatch.setattr(run, "mp4_fault", lambda: "no library")
    with pytest.raises(UserError, match=r"'a.mp4' can't be written: no library; end its name in .webp or .gif"):
        _check(planned(output=Path("a.mp4")), CLIPS)


@pytest.mark.parametrize(
    ("prompt", "more", "says"),
    [
        (None, {}, "give either --prompt or --prompts"),
        (" ", {}, "--prompt is empty"),
        ("a", {"count": 3}, "these are 3 pictures: give --out"),
        (
            "a",
            {"count": 10**30, "out": Path("o")},
            r"^these are 1000000000000000000000000000000 pictures: draw at most",
        ),
    ],
)
def test_what_can_not_be_drawn_is_refused(prompt: str | None, more: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        planned(prompt, **more)


def exported(folder: Path, batch: int = 1) -> TunedConfig:
    target = make_target(find_device("cpu"), batch=batch)
    target = target.model_copy(update={"workload": target.workload.model_copy(update={"steps": 2})})
    made = export(record(target), measured(1), measured(0), None)
    made.save(folder / "best.json")
    return made


def test_pictures_are_drawn_in_calls_of_the_measured_batch_and_the_last_is_padded(tmp_path: Path) -> None:
    exported(tmp_path, batch=2)
    heard: list[str] = []
    told = draw(
        tmp_path / "best.json", planned(count=3, out=tmp_path / "out"), listen=lambda path: heard.append(path.name)
    )
    assert heard == ["000.png", "001.png", "002.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == heard
    pixels = [Image.open(tmp_path / "out" / name).tobytes() for name in heard]
    assert len(set(pixels)) == 3
    assert "a first call, compilation included), then " in told
    assert " s per picture" in told


def test_a_chain_is_drawn_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for its pipes: tests/tuning/test_chain.py loads real chains."""
    stage = exported(tmp_path)
    cost = ChainCost(first_call_s=1.0, warmup_s=(1.0,), latency_samples_s=(1.0,), peak_memory_bytes=1)
    costs = (cost, cost)
    ChainConfig(about="", created="", command="", stages=(stage, stage), baseline=costs, tuned=costs).save(
        tmp_path / "chain.json"
    )
    calls: list[tuple[list[str], int]] = []

    class Pipes:
        stages = (object(), object())

        def set_progress_bar_config(self, **how: object) -> None: ...

        def __call__(self, prompts: list[str], *, seed: int, given: object) -> list[Image.Image]:
            calls.append((prompts, seed))
            return [Image.new("RGB", (8, 8))] * len(prompts)

    monkeypatch.setattr(chain.ChainConfig, "pipeline_on", lambda self, device: Pipes())
    monkeypatch.setattr(run, "_fitted", lambda pipe, tuned, given: ({}, []))
    draw(tmp_path / "chain.json", planned(count=2, seed=3, out=tmp_path / "out"))
    assert calls == [(["a red circle"], 3), (["a red circle"], 4)]
    assert len(list((tmp_path / "out").iterdir())) == 2
