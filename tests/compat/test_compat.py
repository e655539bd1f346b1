"""Which settings go together, one row each, and the tool that finds it out for other versions of the libraries.

REFUSED: the rules refuse these, on targets that need not exist here. WORKS: one child builds and calls these on a tiny
pipeline, and they are judged as the tool does; graphs are captured, not compiled. The C-numbers are only names.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plugin
import pytest
from compiled import captured
from conftest import CPU, gpu, make_target
from once_a_run import traits_once

from autotune.compat import __main__ as command
from autotune.compat import checks, judge, plan, record, run
from autotune.compat.pictures import run_as_captured, unordered_operation
from autotune.compat.together import together
from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.job import CompatJob
from autotune.knobs import all_knobs, complete
from autotune.study.space import SearchSpace
from autotune.target import Target
from autotune.trial import Failure
from autotune.workload import Workload

A100, RTX_2080 = gpu(8, 0), gpu(7, 5, multiprocessors=68)
SDXL = {"class_name": "StableDiffusionXLPipeline", "attention_downsamples": (2, 4), "vae_upcasts_fp16": True}
IF = {
    "class_name": "IFPipeline",
    "vae_class": None,
    "fuses_qkv": False,
    "attention_downsamples": (),
    "repeated_blocks": (),
    "callback_tensors": (),
    "text_encoders": (),
}
PNDM = {
    "scheduler_class": "PNDMScheduler",
    "compatible_schedulers": ("EulerDiscreteScheduler",),
    "callback_tensors": ("latents", "prompt_embeds"),
}
FLUX = {
    "class_name": "FluxPipeline",
    "denoiser": "transformer",
    "denoiser_class": "FluxTransformer2DModel",
    "attention_downsamples": (),
    "slices_attention": False,
    "caches_blocks": True,
    "dispatches_attention": True,
    "flow_matching": True,
}
GRAPHS = {"compile_mode": "reduce-overhead"}

REFUSED: list[tuple[str, str, Mapping[str, Value], Target]] = [
    ("C1", "fuse_attention", {"attention": "sdpa_math", "compile": "denoiser"}, make_target()),
    ("C1-regional", "fuse_attention", {"attention": "sdpa_math", "compile": "regional"}, make_target(A100)),
    ("C2-flash", "dispatcher does not support", {"attention": "flash_attn", "dtype": "bf16"}, make_target(A100)),
    ("C2-sage", "dispatcher does not support", {"attention": "sage", "dtype": "bf16"}, make_target(A100)),
    ("C2-flex", "dispatcher does not support", {"attention": "flex", "compile": "denoiser"}, make_target(A100)),
    ("C3", "hook of token merging", {"tome_ratio": 0.5, "compile": "denoiser"}, make_target()),
    ("C3-vae", "hook of token merging", {"tome_ratio": 0.5, "compile": "denoiser+vae"}, make_target()),
    (
        "C3-everything",
        "hook of token merging",
        {"tome_ratio": 0.5, "compile": "everything"},
        make_target(text_encoders=("text_encoder",)),
    ),
    ("C3-trace", "hook of token merging", {"tome_ratio": 0.5, "compile": "trace"}, make_target()),
    (
        "C6-sdxl",
        "attention at the downsampling factors 2, 4 only",
        {"tome_ratio": 0.5, "tome_max_downsample": 1},
        make_target(**SDXL),
    ),
    ("C6-if", "tomesd", {"tome_ratio": 0.5}, make_target(**IF)),
    ("C6-transformer", "tomesd", {"tome_ratio": 0.5}, make_target(**FLUX)),
    (
        "C7-regional",
        "where a step begins",
        {"compile": "regional", **GRAPHS},
        make_target(A100, controlnet_class="ControlNetModel"),
    ),
    ("C8", "PNDM", {"guidance_cutoff": 0.6, "compile": "denoiser", **GRAPHS}, make_target(A100, **PNDM)),
    (
        "C9",
        "cast to float32 and back",
        {"dtype": "fp16", "compile": "denoiser+vae", **GRAPHS},
        make_target(A100, **SDXL),
    ),
    (
        "C9-everything",
        "cast to float32 and back",
        {"dtype": "fp16", "compile": "everything", **GRAPHS},
        make_target(A100, **SDXL, text_encoders=("text_encoder", "text_encoder_2")),
    ),
    (
        "C10-deepcache",
        "the next graph overwrites",
        {"cache": "deepcache:3", "compile": "regional", **GRAPHS},
        make_target(A100),
    ),
    (
        "C10-first-block",
        "the next graph overwrites",
        {"cache": "first_block:0.05", "compile": "regional", **GRAPHS},
        make_target(A100, **FLUX),
    ),
    (
        "C11",
        "only regional compilation",
        {"cache": "first_block:0.05", "compile": "denoiser"},
        make_target(A100, **FLUX),
    ),
    ("C13", "only regional compilation", {"cache": "deepcache:3", "compile": "denoiser"}, make_target()),
    ("C13-trace", "only regional compilation", {"cache": "deepcache:3", "compile": "trace"}, make_target()),
    ("C14", "guidance can't end", {"cache": "deepcache:3", "guidance_cutoff": 0.6}, make_target(**PNDM)),
    ("C17", "breaks compiled graphs", {"layerwise_casting": "float8_e4m3fn", "compile": "denoiser"}, make_target()),
    (
        "C17-regional",
        "breaks compiled graphs",
        {"layerwise_casting": "float8_e4m3fn", "compile": "regional"},
        make_target(),
    ),
    ("C21-sliced", "would have no effect", {"qkv_fusion": True, "attention": "sliced"}, make_target()),
    ("C21-vanilla", "would have no effect", {"qkv_fusion": True, "attention": "vanilla"}, make_target()),
    ("C23", "does not support fused projections", {"qkv_fusion": True}, make_target(**IF)),
    ("C24", "does not support fused projections", {"qkv_fusion": True}, make_target(fuses_qkv=False)),
    ("C27", "CUDA graphs", {"offload": "model", "compile": "denoiser", **GRAPHS}, make_target(A100)),
    ("C28-sequential", "break compiled graphs", {"offload": "sequential", "compile": "denoiser"}, make_target(A100)),
    ("C28-group", "break compiled graphs", {"offload": "group", "compile": "regional"}, make_target(A100)),
    ("C32", "VAE tiling breaks", {"offload": "group", "vae_tiling": True}, make_target(A100, side=128)),
    ("C36", "compute capability 8.0", {"dtype": "bf16", "compile": "denoiser"}, make_target(RTX_2080)),
    ("C37-fp8", "8.9", {"quantization": "fp8_dynamic", "dtype": "bf16"}, make_target(A100)),
    ("C37-int4", "bfloat16 only", {"quantization": "int4_weight_only", "dtype": "fp16"}, make_target(A100)),
    (
        "C42",
        "loses precision twice",
        {"quantization": "int8_weight_only", "layerwise_casting": "float8_e4m3fn"},
        make_target(),
    ),
    ("C43", "cache of this kind does not work", {"cache": "first_block:0.05"}, make_target()),
]

ALLOWED: list[tuple[str, Mapping[str, Value], Target]] = [
    ("C7", {"compile": "denoiser", **GRAPHS}, make_target(A100, controlnet_class="ControlNetModel")),
    (
        "C8-other",
        {"guidance_cutoff": 0.6, "scheduler": "euler", "compile": "denoiser", **GRAPHS},
        make_target(A100, **PNDM),
    ),
    ("C26", {"offload": "model", "compile": "denoiser"}, make_target(A100)),
    (
        "C33",
        {"compile": "denoiser", "compile_mode": "max-autotune", "inductor_flags": "fast_diffusion"},
        make_target(A100),
    ),
]

WORKS: dict[str, dict[str, Value]] = {
    "C3c-C4": {"tome_ratio": 0.5, "tome_max_downsample": 2, "compile": "regional"},
    "C6": {"tome_ratio": 0.5, "tome_max_downsample": 2},
    "C13": {"cache": "deepcache:3", "compile": "regional"},
    "C15": {"quantization": "int8_dynamic", "qkv_fusion": True},
    "C16": {"layerwise_casting": "float8_e4m3fn", "qkv_fusion": True},
    "C25": {"vae": "tiny", "qkv_fusion": True},
    "C40": {"quantization": "int8_dynamic", "memory_format": "channels_last"},
    "C41": {"quantization": "int8_weight_only", "compile": "regional"},
}


@pytest.mark.parametrize(("word", "values", "target"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_broken_pair_is_refused_with_its_reason(word: str, values: Mapping[str, Value], target: Target) -> None:
    assert word in str(SearchSpace(target, {}).objection(complete(values)))


@pytest.mark.parametrize(("values", "target"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_a_pair_that_works_on_a_gpu_is_not_refused(values: Mapping[str, Value], target: Target) -> None:
    assert SearchSpace(target, {}).objection(complete(values)) is None


def test_projections_are_fused_before_weights_are_offloaded() -> None:
    """C18, C19: fusing reads the weights, which offload has moved away, and would lose a LoRA that is not fused."""
    stages = {name: knob.stage for name, knob in all_knobs().items()}
    assert stages["qkv_fusion"] < stages["quantization"] < stages["offload"]


def tiny_target(name: str) -> Target:
    """The target that the probe would return, without its child process."""
    pipeline = plan.tiny_pipelines()[name]
    traits = traits_once(f"compat-{name}", pipeline)
    workload = Workload(
        prompts=plan.PROMPTS,
        width=traits.default_width,
        height=traits.default_height,
        steps=plan.STEPS,
        guidance_scale=traits.default_guidance_scale,
    )
    known = pipeline.model_copy(update={"traits": traits})
    return plan.fitted(Target(pipeline=known, workload=workload, device=CPU, versions={}))


def job_of(folder: Path, target: Target, configs: list[Config], **limits: Any) -> CompatJob:
    store = folder / "pictures"
    store.mkdir(exist_ok=True)
    return CompatJob(
        target=target,
        configs=tuple(dict(config) for config in dict.fromkeys(configs)),
        folder=str(store),
        **{"at_once": 1, "threads": 1, "budget_s": 300.0, "limit_s": 300.0, **limits},
    )


def make(
    folder: Path, target: Target, configs: list[Config], env: Mapping[str, str] | None = None, **limits: Any
) -> Any:
    """The result of a child, whose pictures are in `folder`/pictures."""
    job = job_of(folder, target, configs, **limits)
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    answer = isolate.run(
        folder / "job", job, timeout_s=800, env={**checks.OFFLINE, **checks.COMPILING, **compiled, **(env or {})}
    )
    assert not isinstance(answer, Failure), answer
    return answer


def draw_captured(folder: Path, target: Target, configs: list[Config]) -> None:
    """Like make(), with graphs that are captured and not compiled: a pair breaks a graph, or a picture, before that."""
    job = folder / "job.json"
    job.write_text(job_of(folder, target, configs).model_dump_json())
    script = "import sys; from test_compat import draw_here; draw_here(sys.argv[1])"
    here = Path(__file__).parent
    env = os.environ | checks.OFFLINE | {"PYTHONPATH": os.pathsep.join(map(str, (here, here.parent)))}
    subprocess.run([sys.executable, "-c", script, str(job)], env=env, check=True)


def draw_here(file: str) -> None:
    """What the child of draw_captured() does. Its forks inherit how graphs are run."""
    from autotune.compat.pictures import run_compat_job

    with captured():
        run_compat_job(CompatJob.model_validate_json(Path(file).read_text()), Path(file).parent)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, record.Verdict]:
    """The verdicts on all rows of WORKS, from one child."""
    folder, target = tmp_path_factory.mktemp("works"), tiny_target("sdxl")
    # Without the check that each value has an effect beside the other: that would compile twice.
    rows = {
        row: replace(plan.check(plan.space_of(target), *values.items()), without={}) for row, values in WORKS.items()
    }
    assert not [check.refused for check in rows.values() if check.refused]
    draw_captured(folder, target, [config for check in rows.values() for config in check.needs])
    return {row: judge.judge(check, judge.Pictures(folder / "pictures")) for row, check in rows.items()}


@pytest.mark.parametrize("row", WORKS)
def test_a_pair_that_works_draws_the_picture_of_its_reference(row: str, verdicts: dict[str, record.Verdict]) -> None:
    assert verdicts[row].outcome == "fine", verdicts[row]


@pytest.mark.parametrize("name", plan.tiny_pipelines())
def test_the_plan_has_every_pair_of_values_of_two_knobs_once(name: str) -> None:
    made = plan.make_plan(tiny_target(name))
    possible = [check.values[0] for check in made.singles]
    pairs = {frozenset((a, b)) for a in possible for b in possible if a[0] != b[0]}
    assert {frozenset(check.values) for check in made.pairs} == pairs
    assert len(made.pairs) == len(pairs)
    assert not [why for why in made.impossible.values() if why.startswith("needs at least")], (
        "every cache has its steps"
    )
    for check in (*made.singles, *made.pairs):
        assert all(check.config[knob] == value for knob, value in check.values)
        assert check.refused == SearchSpace(made.target, {}).objection(check.config)


@pytest.mark.parametrize("most", [3, 8])
@pytest.mark.parametrize("name", ["sd", "flux", "if"])
def test_few_configs_that_the_rules_allow_hold_every_pair_once(name: str, most: int) -> None:
    made = plan.make_plan(tiny_target(name))
    allowed = [pair for pair in made.pairs if not pair.refused]
    wholes = together(plan.space_of(made.target), allowed, most)
    assert sorted(pair.name for _, held in wholes for pair in held) == sorted(pair.name for pair in allowed)
    for whole, held in wholes:
        assert len(whole.values) <= most
        assert SearchSpace(made.target, {}).objection(whole.config) is None
        assert all(set(pair.values) <= set(whole.values) for pair in held)
        assert all(whole.config[knob] == value for knob, value in whole.values)
    if most == 8:
        assert len(wholes) < len(allowed) / 4


def test_a_pair_that_fails_is_found_in_the_configs_that_hold_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The verdicts are made up: one pair fails wherever it is."""
    bad, asked = {"dtype=bf16", "memory_format=channels_last"}, list[plan.Check]()

    def judged(self: checks.Checks, left: list[plan.Check]) -> Any:
        asked.extend(left)
        yield {c.name: record.Verdict(outcome="failed" if bad <= set(c.parts) else "fine") for c in left}

    monkeypatch.setattr(checks, "probe", lambda *_, **__: tiny_target("sd"))
    monkeypatch.setattr(checks.Checks, "judged", judged)
    pairs = ended(tmp_path, "one.json", pipelines="sd", together=True).pipelines["sd"].pairs
    assert [name for name, verdict in pairs.items() if verdict.outcome == "failed"] == [" + ".join(sorted(bad))]
    assert {verdict.outcome for verdict in pairs.values()} == {"fine", "failed", "refused"}
    assert {v.among for v in pairs.values() if v.outcome == "fine"} > {8}
    assert pairs[" + ".join(sorted(bad))].among is None, "it was tried alone"
    assert len(asked) < len(pairs) / 2


def test_captured_graphs_run_and_nothing_is_compiled() -> None:
    import torch

    compiler: Any = torch._TorchCompileInductorWrapper
    with captured() as counters:  # puts the compiler back
        compiler.__call__ = lambda *_, **__: pytest.fail("Inductor was asked")
        run_as_captured()
        assert torch.compile(lambda x: x + 1, mode="max-autotune-no-cudagraphs")(torch.ones(2)).tolist() == [2, 2]
        assert counters["stats"]["unique_graphs"] == 1


def test_a_file_of_compiled_graphs_is_not_continued_with_captured_ones(tmp_path: Path) -> None:
    made = record.CompatRecord(created="", command="", device={}, versions={})
    said = made.difference(made.model_copy(update={"captured": True}))
    assert said == "graphs compiled"
    assert made.difference(made) is None


def test_the_tiny_pipelines_are_of_different_kinds() -> None:
    targets = [tiny_target(name) for name in plan.tiny_pipelines()]
    denoisers = {target.pipeline.known.denoiser_class for target in targets}
    assert len(denoisers) >= 3
    assert any(target.pipeline.known.controlnet_class for target in targets)
    assert any(target.pipeline.known.vae_class is None for target in targets)
    assert any(target.pipeline.known.dispatches_attention for target in targets)


def test_every_failure_of_a_config_is_an_outcome_and_disturbs_no_other(tmp_path: Path) -> None:
    troubles = ("none", "exception", "segfault", "hang", "nan", "black", "nothing", "exit", "out_of_memory")
    configs = {trouble: Config({**complete({}), "trouble": trouble}) for trouble in troubles}
    installed = plugin.install(tmp_path / "plugin")
    env = {"PYTHONPATH": installed["PYTHONPATH"]}
    make(tmp_path, tiny_target("controlnet"), [*configs.values(), complete({})], env, limit_s=15.0, at_once=2)
    pictures = judge.Pictures(tmp_path / "pictures")
    made = {trouble: pictures.made(config) for trouble, config in configs.items()}
    causes = {trouble: outcome.failure.cause for trouble, outcome in made.items() if outcome and outcome.failure}
    assert causes == {
        "exception": "error",
        "segfault": "crash",
        "hang": "timeout",
        "nan": "broken_output",
        "black": "broken_output",
        "nothing": "no_effect",
        "exit": "crash",
        "out_of_memory": "out_of_memory",
    }
    assert pictures.distance(configs["none"], complete({})) == (0, 0)


CONFIG = complete({"tome_ratio": 0.5, "memory_format": "channels_last"})
CHECK = plan.Check(
    values=(("tome_ratio", 0.5), ("memory_format", "channels_last")),
    config=CONFIG,
    refused=None,
    without={"tome_ratio=0.5": complete({"memory_format": "channels_last"})},
    rank=0,
)


def verdict_on(folder: Path, *, moved: float, alone: float = 0.5, **fields: Any) -> record.Verdict:
    """The verdict on CHECK with made-up pictures.

    moved   the distance from the reference's picture
    alone   the distance from the picture without token merging
    fields  of the outcome (record.Made)
    """
    grey = np.full((2, 8, 8, 3), 0.25, dtype=np.float32)
    reference = grey + 0.1
    made = {plan.PLAIN: grey, CHECK.reference: reference, CONFIG: reference + moved}
    made[CHECK.without["tome_ratio=0.5"]] = made[CONFIG] + alone
    for config, pixels in made.items():
        outcome = record.Made(**(fields if config == CONFIG else {"rounded": fields.get("rounded", False)}))
        (folder / f"{config.digest}.json").write_text(json.dumps(outcome.to_json()))
        np.save(folder / f"{config.digest}.npy", pixels)
    return judge.judge(CHECK, judge.Pictures(folder))


def test_a_pair_is_judged_against_the_picture_of_its_reference(tmp_path: Path) -> None:
    assert CHECK.reference == complete({"tome_ratio": 0.5})
    fine = verdict_on(tmp_path, moved=1e-4, seconds=1.26)
    assert (fine.outcome, fine.difference, fine.seconds) == ("fine", 1e-4, 1.3)
    off = verdict_on(tmp_path, moved=0.01)
    assert (off.outcome, off.cause) == ("failed", "differs")


def test_coarser_formats_may_differ_by_three_times_the_change_by_rounding(tmp_path: Path) -> None:
    """Rounding changes the reference by 0.1."""
    assert verdict_on(tmp_path, moved=0.25, rounded=True).outcome == "fine"
    assert verdict_on(tmp_path, moved=0.35, rounded=True).cause == "differs"


def test_a_value_that_changes_no_pixel_beside_another_has_no_effect(tmp_path: Path) -> None:
    verdict = verdict_on(tmp_path, moved=0.0, alone=0.0)
    assert (verdict.outcome, verdict.cause, verdict.reason) == (
        "failed",
        "no_effect",
        "tome_ratio=0.5 changes nothing here",
    )


def test_pictures_that_change_from_call_to_call_are_a_failure(tmp_path: Path) -> None:
    assert verdict_on(tmp_path, moved=0.0, repeat_difference=0.1).cause == "broken_output"


def test_sums_in_any_order_may_differ_from_call_to_call_by_less_than_the_setting_changes(tmp_path: Path) -> None:
    """As those of token merging on a GPU."""
    unordered = {"repeat_difference": 0.1, "unordered": "scatter_add_"}
    assert verdict_on(tmp_path, moved=0.05, alone=0.2, **unordered).outcome == "fine"
    assert verdict_on(tmp_path, moved=0.15, alone=0.2, **unordered).cause == "differs"
    lost = verdict_on(tmp_path, moved=0.05, alone=0.05, **unordered)
    assert lost.cause == "broken_output"
    assert "scatter_add_ adds in any order" in (lost.reason or "")


def test_torch_is_asked_which_operation_adds_in_any_order() -> None:
    import torch

    assert unordered_operation(lambda: torch.ones(3).sum()) is None
    assert unordered_operation(lambda: torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))) == "put_"
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_function_that_torch_gave_up_to_compile_is_a_failure(tmp_path: Path) -> None:
    assert verdict_on(tmp_path, moved=0.0, given_up=2).cause == "unsupported"


def ended(folder: Path, name: str, **options: Any) -> record.CompatRecord:
    """The file that a run writes."""
    arguments: dict[str, Any] = {
        "device": "cpu",
        "pipelines": "if",
        "only": (),
        "without": (),
        "challenge": False,
        "again": False,
        "captured": False,
        "together": False,
        "limit_s": None,
        "at_once": None,
        "command": "test",
        "listen": lambda name, verdicts: None,
    }
    path, _ = run.compat(folder / "work", folder / name, **(arguments | options))
    return record.read_record(path)


def test_a_run_is_continued_by_the_same_command_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "probe", lambda *_, **__: tiny_target("if"))
    alone = all_knobs().keys() - {"dtype", "memory_format"}
    first = ended(tmp_path, "one.json", only=("dtype",), without=alone).pipelines["if"]
    ran = {name for name, verdict in first.pairs.items() if verdict.outcome == "fine"}
    assert ran == {"dtype=bf16 + memory_format=channels_last"}
    assert first.counts()["not run"] + first.counts()["refused"] == len(first.pairs) - 1
    assert list(first.pairs) == sorted(first.pairs)
    before = (tmp_path / "one.json").read_text()
    monkeypatch.setattr(isolate, "run", lambda *_, **__: pytest.fail("there is nothing left to run"))
    assert ended(tmp_path, "one.json", only=("dtype",), without=alone).pipelines["if"] == first
    assert (tmp_path / "one.json").read_text() == before


def test_a_file_of_other_libraries_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    made = record.CompatRecord(
        created="", command="", device=record.describe_device(CPU), versions={"torch": "0.4"}, pipelines={}
    )
    record.write_record(path, made)
    with pytest.raises(UserError, match="delete it or use another -o"):
        ended(tmp_path, "one.json")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--pipelines", "sdlx"], "sdxl"),
        (["--only", "dtpye"], "dtype"),
        (["--without", "nothing"], "unknown knob"),
        (["--device", "tpu"], "--device takes"),
    ],
)
def test_a_bad_flag_is_one_sentence(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["compat", *flags, "-o", str(tmp_path / "one.json")])
    with pytest.raises(SystemExit) as ended:
        command.run()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "one.json").exists()
