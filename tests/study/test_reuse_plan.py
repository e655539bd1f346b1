"""The reuse plan, on made-up trials: which trial is the source, the compiler, an incumbent."""

from typing import Any

import pytest
from conftest import gpu, make_target
from made_up import changed, failed, measured, record, stopped

from autotune.config import Value
from autotune.goal import Goal
from autotune.knobs import all_knobs, complete
from autotune.measurement import CompiledAs, Quality
from autotune.reuse import MIN_PSNR_DB, Reuse, SourceTrial, SpotCheck
from autotune.study.reuse_plan import distrusted_knobs, graph_key, incumbents, picture_key, plan_reuse
from autotune.trial import Anchor, Trial

MIB = 2**20
LOOSE = Goal(max_quality_drop=100.0)
LAYOUT = {"memory_format": "channels_last"}


def planned(config: dict[str, Value], *trials: Trial, anchors: tuple[Anchor, ...] = (), **more: Any) -> Reuse:
    return plan_reuse(len(trials), complete(config), trials, anchors, record(**more))


def source(config: dict[str, Value], *trials: Trial, **more: Any) -> SourceTrial | None:
    return planned(config, *trials, **more).source


def drawn(number: int, values: dict[str, Value], psnr_db: float) -> Trial:
    judged = Quality(metric="clip", scorer="demo@0", clip_scores=(30.0, 31.0), ssim=(0.99,) * 2, psnr_db=(psnr_db,) * 2)
    return measured(number, values, judged=judged)


def checked(trial: Trial, at: int, *, same: bool, suspects: dict[str, Value], shares: bool = False) -> Trial:
    spot_check = SpotCheck(
        trial=at, prompt=0, suspects=suspects, ssim=0.9, psnr_db=20.0, largest_levels=0 if same else 99
    )
    return changed(trial, spot_check=spot_check, quality_of=at if shares else None)


def another(name: str) -> Value:
    """A value of the knob that is not its default. Of `steps` and `encoding` none is listed."""
    return {"steps": 8, "encoding": "once"}.get(name) or all_knobs()[name].values[1]


@pytest.mark.parametrize("name", [n for n, k in all_knobs().items() if not k.changes_output and k.modifies is None])
def test_a_knob_that_does_not_change_the_picture_reuses_the_baselines(name: str) -> None:
    found = source({name: another(name)}, measured(0))
    assert found is not None
    assert (found.trial, list(found.suspects)) == (0, [name])


@pytest.mark.parametrize("name", [n for n, k in all_knobs().items() if k.changes_output and k.modifies is None])
def test_a_knob_that_changes_the_picture_has_no_source(name: str) -> None:
    assert source({name: another(name)}, measured(0)) is None


@pytest.mark.parametrize("name", ["qkv_fusion", "conv1x1_as_linear"])
def test_a_knob_that_alters_which_layers_are_quantized_changes_the_picture_of_a_quantized_config(name: str) -> None:
    quantized: dict[str, Value] = {"quantization": "int8_dynamic"}
    assert source({**quantized, name: True}, measured(0), measured(1, quantized)) is None
    assert source({**quantized, **LAYOUT}, measured(0), measured(1, quantized)) is not None


def test_the_source_is_the_trial_that_differs_least_and_has_pictures_of_its_own() -> None:
    bf16: dict[str, Value] = {"dtype": "bf16"}
    compiled: dict[str, Value] = {**bf16, "compile": "denoiser"}
    first, near = measured(1, bf16), measured(2, {**compiled, "qkv_fusion": True})
    found = source({**compiled, **LAYOUT, "qkv_fusion": True}, measured(0), first, near)
    assert found is not None
    assert (found.trial, found.suspects) == (2, LAYOUT)
    shares = checked(near, 1, same=True, suspects={}, shares=True)
    found = source({**compiled, **LAYOUT, "qkv_fusion": True}, measured(0), first, shares)
    assert found is not None
    assert found.trial == 1


def test_a_failed_or_stopped_trial_is_no_source() -> None:
    assert (
        source({"dtype": "bf16", **LAYOUT}, measured(0), failed(1, {"dtype": "bf16"}), stopped(2, {"dtype": "bf16"}))
        is None
    )


def test_successive_trials_check_successive_prompts() -> None:
    target = make_target()
    workload = target.workload.model_copy(update={"prompts": ("one", "two", "three")})
    where = target.model_copy(update={"workload": workload})
    seen = [plan_reuse(n, complete(LAYOUT), [measured(0)], (), record(where)).source for n in (3, 4, 5, 6)]
    assert [one.prompt for one in seen if one] == [0, 1, 2, 0]


def test_in_float32_on_a_cpu_only_the_same_picture_will_do_and_a_mismatch_is_conclusive() -> None:
    found = source(LAYOUT, measured(0))
    assert found is not None
    assert (found.min_psnr_db, found.conclusive) == (None, True)


def test_on_a_gpu_whose_float32_rounds_a_mismatch_is_not_conclusive() -> None:
    found = source(LAYOUT, measured(0), target=make_target(gpu(9, 0)))
    assert found is not None
    assert (found.min_psnr_db, found.conclusive) == (None, False)


def test_in_a_coarse_format_pictures_may_differ_twice_as_much_as_it_rounds() -> None:
    """How much it rounds, the trial shows that differs from the baseline only in the format. Twice as much: 6 dB."""
    alone, fewer = drawn(1, {"dtype": "bf16"}, 52.0), drawn(2, {"dtype": "bf16", "steps": 8}, 34.0)
    config: dict[str, Value] = {"dtype": "bf16", "steps": 8, **LAYOUT}
    found = source(config, measured(0), alone, fewer)
    assert found is not None
    assert (found.trial, found.conclusive) == (2, True)
    assert found.min_psnr_db == pytest.approx(46.0, abs=0.03)
    unknown = source(config, measured(0), fewer)
    assert unknown is not None
    assert (unknown.min_psnr_db, unknown.conclusive) == (None, False)


def test_however_much_a_format_rounds_another_picture_will_not_do() -> None:
    found = source({"dtype": "bf16", **LAYOUT}, measured(0), drawn(1, {"dtype": "bf16"}, 21.0))
    assert found is not None
    assert found.min_psnr_db == MIN_PSNR_DB


def test_a_knob_that_failed_a_spot_check_is_distrusted_from_then_on() -> None:
    liar = checked(measured(1, LAYOUT), 0, same=False, suspects=LAYOUT)
    assert distrusted_knobs([measured(0), liar]) == {"memory_format"}
    assert source({**LAYOUT, "qkv_fusion": True}, measured(0)) is not None
    other = source({**LAYOUT, "qkv_fusion": True}, measured(0), liar)
    assert other is not None
    assert other.trial == 1, "the trial that has the same value of the distrusted knob"
    assert picture_key(complete(LAYOUT), frozenset({"memory_format"})) != picture_key(complete({}))


def test_a_knob_that_was_cleared_is_no_suspect() -> None:
    cleared = checked(measured(1, LAYOUT), 0, same=True, suspects=LAYOUT, shares=True)
    found = source({**LAYOUT, "qkv_fusion": True}, measured(0), cleared)
    assert found is not None
    assert found.suspects == {"qkv_fusion": True}


REGIONAL: dict[str, Value] = {"compile": "regional"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"steps": 5}),
        ({"guidance_cutoff": 0.6}, {"guidance_cutoff": 0.8, "steps": 5}),
        ({"cache": "deepcache:3"}, {"cache": "deepcache:5"}),
    ],
)
def test_the_compiler_is_the_first_trial_that_compiled_the_same_graphs(
    first: dict[str, Value], second: dict[str, Value]
) -> None:
    earlier = [measured(0), measured(1, REGIONAL | first), measured(2, REGIONAL | first | second)]
    assert planned(REGIONAL | second, *earlier[:2]).compiler == 1
    theirs = CompiledAs(trial=1, first_calls_s=(1.0,), compile_s=0.5)
    assert planned(REGIONAL | second, earlier[0], changed(earlier[2], compiled_as=theirs)).compiler is None
    assert planned(first | second, *earlier).compiler is None, "it is not compiled"


@pytest.mark.parametrize(
    "other",
    [
        *(
            {name: knob.values[1]}
            for name, knob in all_knobs().items()
            if name not in {"steps", "compile"} and knob.modifies is None and len(knob.values) > 1
        ),
        {"compile": "denoiser"},
        {"compile_mode": "max-autotune"},
    ],
    ids=str,
)
def test_a_trial_that_differs_in_anything_else_has_compiled_other_graphs(other: dict[str, Value]) -> None:
    """Of most knobs Inductor's cache knows nothing, an attention kernel that is set around the denoiser among them."""
    assert planned(REGIONAL | other, measured(0), measured(1, REGIONAL)).compiler is None


@pytest.mark.parametrize("scope", ["off", "trace"])
def test_a_config_that_inductor_does_not_compile_has_no_compiler(scope: str) -> None:
    assert graph_key(complete({"compile": scope})) is None


def test_a_failed_trial_has_compiled_nothing() -> None:
    assert planned(REGIONAL | {"steps": 5}, measured(0), failed(1, values=REGIONAL)).compiler is None


def test_incumbents_lose_no_quality_keep_the_limits_and_are_not_dominated() -> None:
    fast = measured(1, latency_s=0.5, memory_bytes=300 * MIB)
    beaten = measured(2, latency_s=0.9, memory_bytes=310 * MIB)
    lossy = measured(3, latency_s=0.1, memory_bytes=10 * MIB, loss=0.1)
    trials = [measured(0, memory_bytes=100 * MIB), fast, beaten, lossy, failed(4), stopped(5)]
    found = incumbents(trials, LOOSE, 1.0)
    assert [(one.trial, one.latencies_s, one.peak_memory_bytes) for one in found] == [
        (1, (0.5,), 300 * MIB),
        (0, (1.0,), 100 * MIB),
    ]
    tight = LOOSE.model_copy(update={"max_vram_bytes": 200 * MIB})
    assert [one.trial for one in incumbents(trials, tight, 1.0)] == [0]


def test_an_incumbents_latency_is_what_it_would_be_now() -> None:
    """Measured when the device was at trial 0's speed, and again after it has slowed down by a tenth."""
    slow = measured(0, latency_s=1.1).outcome
    anchor = Anchor(before=1, outcome=slow, seconds=1.0)
    trial = measured(1, latency_s=0.55).model_copy(update={"drift": 1.1})
    found = planned({"dtype": "bf16"}, measured(0), trial, anchors=(anchor,)).incumbents
    assert found[0].latencies_s == pytest.approx((0.55,))
    assert planned({"dtype": "bf16"}, measured(0), anchors=(anchor,)).incumbents[0].latencies_s == pytest.approx((1.1,))


def test_incumbents_have_a_latency_for_each_size_if_each_is_minimised() -> None:
    goal = Goal(max_quality_drop=1.0, minimise="each")
    found = planned({"dtype": "bf16"}, measured(0, also=(2.0, 3.0)), target=make_target(sizes=3), goal=goal)
    assert found.each
    assert found.incumbents[0].latencies_s == (1.0, 2.0, 3.0)
