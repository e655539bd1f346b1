"""Tuned stages run as a chain: each starts from the pictures of the one before, and the whole is measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from searches import REQUESTED
from tiny import tiny_checkpoint

import autotune
from autotune.building import build
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.job import ChainJob
from autotune.knobs import complete
from autotune.measurement import ChainCost
from autotune.pipeline import Pipeline
from autotune.pipelines import resolve
from autotune.production.chain import ChainConfig
from autotune.production.tuned_config import Evidence, TunedConfig
from autotune.trial import Failure
from autotune.tuning.chain import about, chain
from autotune.workload import Workload

MIB = 2**20

SIDES = {"IFPipeline": 16, "IFSuperResolutionPipeline": 32, "StableDiffusionUpscalePipeline": 64}
EVIDENCE = Evidence(
    latency_s=1.0,
    latency_samples_s=(1.0,),
    first_call_s=1.0,
    peak_memory_bytes=1,
    effects={},
    quality_metric="likeness",
    quality_loss=0.0,
    ssim_mean=1.0,
    ssim_worst=1.0,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stages")
    return {name: tiny_checkpoint(name, root / name) for name in SIDES}


def workload(side: int, *, batch: int = 1) -> Workload:
    prompts = ("a red circle", "a blue star")
    return Workload(prompts=prompts, width=side, height=side, batch=batch, steps=2, guidance_scale=4.0)


def exported(pipeline: Pipeline, side: int, *, batch: int = 1, device: str = "", **knobs: Any) -> TunedConfig:
    here = find_device("cpu")
    return TunedConfig(
        about="made for a test",
        created="2026-11-21",
        command="",
        pipeline_class=Path(pipeline.source).name,
        pipeline=pipeline,
        workload=workload(side, batch=batch),
        knobs=dict(complete(knobs)),
        tuned=EVIDENCE,
        baseline_knobs=dict(complete({})),
        baseline=EVIDENCE,
        confirmation=None,
        device=here.model_copy(update={"name": device}) if device else here,
        versions={},
    )


@pytest.fixture(scope="module")
def stages(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three exported configs; the second one sets another attention."""
    root, paths = tmp_path_factory.mktemp("exported"), []
    for number, (name, side) in enumerate(SIDES.items()):
        knobs = {"attention": "vanilla"} if number == 1 else {}
        paths.append(root / f"stage{number + 1}.json")
        exported(resolve(str(folders[name])), side, **knobs).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def live(folders: dict[str, Path]) -> Any:
    made = build.chain([(resolve(str(folders[n])), complete({}), workload(s)) for n, s in SIDES.items()], "cpu")
    made.set_progress_bar_config(disable=True)
    return made


def test_a_chain_draws_the_last_stages_picture(live: Any) -> None:
    with torch.no_grad():
        one, other = live(["a red circle", "a blue star"], seed=3)
        again = live(["a red circle", "a blue star"], seed=3)[0]
    assert one.size == other.size == (64, 64)
    assert one.tobytes() == again.tobytes() != other.tobytes()


def test_a_later_stage_starts_from_what_the_one_before_drew(live: Any) -> None:
    """The same last stage, started from another picture, draws another one."""
    given: list[Any] = []
    last = type(live.stages[1])

    class Watched(last):  # type: ignore[misc, valid-type]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            given.extend(kwargs["image"])
            return super().__call__(*args, **kwargs)

    live.stages[1].__class__ = Watched
    try:
        live("a red circle")
    finally:
        live.stages[1].__class__ = last
    assert [image.size for image in given] == [(16, 16)]


def test_the_same_text_encoder_is_loaded_once(live: Any) -> None:
    first, second, third = live.stages
    assert first.text_encoder is second.text_encoder
    assert third.text_encoder is not first.text_encoder


def test_another_text_encoder_is_not_shared(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tiny_checkpoint("IFSuperResolutionPipeline", tmp_path / "other")
    config = other / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dropout_rate": 0.2}))
    pairs = [(folders["IFPipeline"], 16), (other, 32)]
    first, second = build.chain([(resolve(str(f)), complete({}), workload(s)) for f, s in pairs], "cpu").stages
    assert first.text_encoder is not second.text_encoder


def test_a_stage_that_starts_from_nothing_can_only_be_the_first(folders: dict[str, Path]) -> None:
    stage = (resolve(str(folders["IFPipeline"])), complete({}), workload(16))
    with pytest.raises(UserError, match="it can only be the first stage of a chain"):
        build.chain([stage, stage], "cpu")


@pytest.mark.usefixtures("children_are_forked")
def test_a_chain_is_measured_exported_and_loaded(stages: list[Path], tmp_path: Path) -> None:
    REQUESTED.clear()
    heard: list[tuple[int, str]] = []
    made = chain(stages, rounds=2, device="cpu", listen=lambda number, which: heard.append((number, which)))
    assert heard == [(1, "baseline"), (1, "tuned"), (2, "tuned"), (2, "baseline")]
    assert [len(made.baseline), len(made.tuned)] == [2, 2]
    assert all(len(cost.latency_samples_s) >= 5 and cost.peak_memory_bytes > 0 for cost in made.tuned)
    assert list(REQUESTED.values()) == [None] * 4
    assert "2 interleaved rounds" in made.about
    made.save(tmp_path / "chain.json")
    assert ChainConfig.load(tmp_path / "chain.json") == made
    live = autotune.load(tmp_path / "chain.json", device="cpu")
    assert type(live.stages[1].unet.down_blocks[1].attentions[0].processor).__name__ == "AttnAddedKVProcessor"
    assert live("a red circle")[0].size == (64, 64)


def test_a_change_of_memory_is_told_only_beyond_the_scatter_of_the_runs(stages: list[Path]) -> None:
    tuned = tuple(TunedConfig.load(path) for path in stages)

    def said(baseline: tuple[int, ...], of_tuned: tuple[int, ...]) -> str:
        costs = [
            tuple(
                ChainCost(first_call_s=1.0, warmup_s=(1.0,), latency_samples_s=(1.0,) * 5, peak_memory_bytes=peak)
                for peak in peaks
            )
            for peaks in (baseline, of_tuned)
        ]
        return about(ChainConfig(about="", created="", command="", stages=tuned, baseline=costs[0], tuned=costs[1]))

    assert "the same memory" in said((1000 * MIB, 1040 * MIB), (960 * MIB, 1000 * MIB))
    assert "5% less memory" in said((1000 * MIB, 1040 * MIB), (980 * MIB, 990 * MIB))
    assert "50% more memory" in said((1000 * MIB,) * 2, (1490 * MIB, 1500 * MIB))


def test_a_chain_is_no_stage(stages: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "chain.json"
    path.write_text(json.dumps({"kind": "chain", "schema_version": 2}))
    with pytest.raises(UserError, match=r"is of a chain, which autotune.load\(\) and `autotune run` take"):
        TunedConfig.load(path)


def test_a_chain_is_measured_in_new_interpreters() -> None:
    assert ChainJob.model_fields["kind"].default not in isolate.FORKED_KINDS


def test_a_chain_on_a_device_that_is_always_contended_is_tried_three_times(
    stages: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def contended(folder: Path, job: Any, **_: Any) -> Failure:
        attempts.append(folder)
        return Failure(cause="contended", reason="others took 50% of the usable cores' time")

    monkeypatch.setattr(isolate, "run", contended)
    with pytest.raises(UserError, match=r"contended.*others took 50%"):
        chain(stages, rounds=2, device="cpu")
    assert len(attempts) == 3


def test_stages_that_do_not_go_together_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = resolve(str(folders["IFPipeline"]))
    for name, config in {
        "one": exported(pipeline, 16),
        "four": exported(pipeline, 16, batch=4),
        "elsewhere": exported(pipeline, 16, device="NVIDIA A100"),
    }.items():
        config.save(tmp_path / f"{name}.json")
    for names, says in (
        (["one"], "a chain needs at least two stages, 1 given"),
        (["one", "four"], "for a batch of 4"),
        (["one", "elsewhere"], "was tuned on NVIDIA A100"),
        (["one", "missing"], "there is no config"),
    ):
        with pytest.raises(UserError, match=says):
            chain([tmp_path / f"{name}.json" for name in names], device="cpu")
