"""SearchSpace: which configs are allowed on a target, and the reason for each one that is not."""

import random
from collections.abc import Mapping

import pytest
from conftest import CPU, gpu, make_target

from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.knob import Change
from autotune.knobs import all_knobs, complete
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import SHIPPED, SpaceFile, shipped_space_file
from autotune.target import Target

DEVICES = (CPU, gpu(7, 0, multiprocessors=80), gpu(7, 5, multiprocessors=40), gpu(8, 9), gpu(9, 0))
SHIPPED_FILES = sorted(path.name for folder in SHIPPED if folder.is_dir() for path in folder.glob("*.toml"))
FEW = ("dtype", "qkv_fusion", "tome_ratio", "tome_max_downsample", "attention", "compile", "compile_mode")

on_every_device = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.slug)


def space(
    target: Target | None = None,
    *,
    knobs: Mapping[str, tuple[Value, ...]] | None = None,
    fix: Mapping[str, Value] | None = None,
    exclude: tuple[str, ...] = (),
    baseline: Config | None = None,
    only: tuple[str, ...] | None = None,
) -> SearchSpace:
    """A space of the knobs in `only` (default: all), with these values instead of all that they offer."""
    left_out = set(all_knobs()) - set(only) - set(fix or {}) if only is not None else set()
    return make_space(
        target or make_target(),
        SpaceFile(knobs=dict(knobs or {})),
        fix=fix or {},
        exclude=(*exclude, *sorted(left_out)),
        baseline=baseline or complete({}),
    )


@on_every_device
@pytest.mark.parametrize("file", SHIPPED_FILES)
def test_the_baseline_is_in_every_shipped_space(device: object, file: str) -> None:
    target = make_target(device)  # type: ignore[arg-type]
    made = make_space(target, shipped_space_file(file), fix={}, exclude=(), baseline=complete({}))
    assert made.objection(complete({})) is None
    assert all(knob.default in made.values[name] for name, knob in all_knobs().items() if knob.modifies is None)


def test_the_baselines_values_are_in_whatever_the_file_says() -> None:
    baseline = complete({"dtype": "bf16", "steps": 30})
    made = space(knobs={"dtype": ("fp32",), "steps": (8,)}, baseline=baseline)
    assert made.values["dtype"] == ("bf16", "fp32")
    assert made.values["steps"] == (30, 8)
    assert made.config({}) == baseline


def test_the_baseline_is_one_of_all_configs() -> None:
    assert complete({}) in set(space(only=FEW).all_configs())


def test_a_knob_that_the_file_does_not_name_keeps_all_that_it_offers() -> None:
    made = space(make_target(gpu(9, 0)), knobs={"dtype": ("fp32",)})
    assert made.values["dtype"] == ("fp32",)
    assert made.values["compile"] == all_knobs()["compile"].values


def test_a_fixed_knob_has_one_value_in_every_config() -> None:
    made = space(only=("dtype", "qkv_fusion"), fix={"dtype": "bf16"})
    assert "dtype" not in made.free
    assert {config["dtype"] for config in made.all_configs()} == {"bf16"}
    assert made.count() == 2


def test_an_excluded_knob_keeps_the_baselines_value() -> None:
    made = space(exclude=("dtype", "compile"), baseline=complete({"dtype": "bf16"}))
    assert made.values["dtype"] == ("bf16",)
    assert made.values["compile"] == ("off",)
    assert not {"dtype", "compile"} & set(made.free)


def test_a_knob_that_is_fixed_and_excluded_is_refused() -> None:
    with pytest.raises(UserError, match="--fix dtype=bf16 and --exclude dtype are two values: give one of them"):
        space(fix={"dtype": "bf16"}, exclude=("dtype",))


def test_a_value_that_is_not_available_here_is_left_out_with_its_reason() -> None:
    made = space()
    assert "fp16" not in made.values["dtype"]
    assert made.impossible["dtype", "fp16"] == "diffusers does not support float16 on a CPU"
    assert made.objection(complete({"dtype": "fp16"})) == "dtype=fp16: diffusers does not support float16 on a CPU"


SLOW = CPU.model_copy(update={"bfloat16_fault": "it takes long here"})


def test_a_value_that_works_but_is_not_worth_trying_is_left_out_with_its_reason() -> None:
    made = space(make_target(SLOW))
    assert made.values["dtype"] == ("fp32",)
    assert made.impossible["dtype", "bf16"] == "it takes long here; --fix dtype=bf16 tries it"
    assert made.objection(complete({"dtype": "bf16"})) == "dtype=bf16: it takes long here; --fix dtype=bf16 tries it"
    assert "bf16" in space(make_target(CPU)).values["dtype"]


def test_what_is_not_worth_trying_is_tried_where_the_user_asks_for_it() -> None:
    assert space(make_target(SLOW), fix={"dtype": "bf16"}).values["dtype"] == ("bf16",)
    asked = space(make_target(SLOW), baseline=complete({"dtype": "bf16"}))
    assert asked.values["dtype"] == ("bf16", "fp32")
    assert asked.objection(complete({"dtype": "bf16"})) is None
    assert space(make_target(SLOW), knobs={"dtype": ("fp32", "bf16")}).values["dtype"] == ("fp32", "bf16")


def test_every_offered_value_is_either_possible_or_has_its_reason() -> None:
    made = space()
    for name, knob in all_knobs().items():
        refused = {value for (which, value) in made.impossible if which == name}
        assert set(made.values[name]) | refused >= set(knob.values)
        assert not set(made.values[name]) & refused


def test_a_value_outside_the_space_is_judged_by_the_same_rules() -> None:
    made = space(knobs={"vae_tiling": (False,)})
    assert made.objection(complete({"vae_tiling": True})) == "vae_tiling=True: 64x64 fits in one tile of 64 pixels"
    assert made.objection(complete({"steps": 20})) == "steps=20: is the workload's number of steps"
    assert made.objection(complete({"steps": 7})) is None


def test_values_are_judged_by_the_steps_of_the_config() -> None:
    made = space()
    one_step = "needs at least 2 steps, and a call has 1"
    assert made.objection(complete({"steps": 1, "cache": "deepcache:3"})) == f"cache=deepcache:3: {one_step}"
    assert made.objection(complete({"steps": 1, "guidance_cutoff": 0.6})) == (
        "guidance_cutoff=0.6: a call of one step has no later step that could be unguided"
    )
    assert made.objection(complete({"steps": 2, "cache": "deepcache:3"})) is None
    assert made.objection(complete({"steps": 2, "guidance_cutoff": 0.6})) is None


def test_a_clash_is_an_objection() -> None:
    made = space()
    assert made.objection(complete({"attention": "vanilla", "qkv_fusion": True})) == (
        "vanilla attention uses the separate projections, so qkv_fusion would have no effect"
    )


def test_a_value_that_had_no_effect_leaves_the_space() -> None:
    made = space(only=("dtype", "qkv_fusion"))
    before = made.count()
    made.no_effect.add(("qkv_fusion", True))
    assert made.objection(complete({"qkv_fusion": True})) == "qkv_fusion=True had no effect here"
    assert all(config["qkv_fusion"] is False for config in made.all_configs())
    assert (before, made.count()) == (4, 2)


def test_all_configs_are_different_and_none_is_objected_to() -> None:
    made = space(only=FEW)
    configs = list(made.all_configs())
    assert len(configs) == len(set(configs)) == made.count()
    assert len(configs) < made.combinations()
    assert [config for config in configs if made.objection(config)] == []


def test_all_configs_are_all_that_there_are() -> None:
    made = space(only=("dtype", "compile", "compile_mode"), knobs={"compile": ("off", "regional")})
    assert made.values["compile_mode"] == ("default", "max-autotune-no-cudagraphs")
    expected = {complete({"dtype": d}) for d in ("fp32", "bf16")} | {
        complete({"dtype": d, "compile": "regional", "compile_mode": m})
        for d in ("fp32", "bf16")
        for m in made.values["compile_mode"]
    }
    assert set(made.all_configs()) == expected


def test_a_space_too_large_to_count_says_so() -> None:
    made = space(make_target(gpu(9, 0), batch=2, side=128), knobs={"steps": tuple(range(1, 20))})
    assert made.combinations() > 200_000
    assert made.count() is None


def test_random_configs_never_repeat_and_end_when_all_were_tried() -> None:
    ratios = {"tome_ratio": (0.0, 0.25, 0.5, 0.75)}  # the knob's own range has always another number
    made = space(knobs=ratios, only=("dtype", "qkv_fusion", "memory_format", "tome_ratio", "tome_max_downsample"))
    rng, tried = random.Random(0), []
    while (config := made.random(rng, tried)) is not None:
        assert config not in tried
        assert made.objection(config) is None
        tried.append(config)
    assert set(tried) == set(made.all_configs())
    assert len(tried) == made.count() > 10


def test_random_finds_the_last_config_when_drawing_does_not() -> None:
    made = space(only=("dtype", "qkv_fusion"))
    configs = list(made.all_configs())
    assert made.random(random.Random(0), configs[:-1], attempts=0) == configs[-1]
    assert made.random(random.Random(0), configs, attempts=0) is None


def test_random_gives_up_in_a_space_too_large_to_list() -> None:
    made = space(make_target(gpu(9, 0), batch=2, side=128), knobs={"steps": tuple(range(1, 20))})
    assert made.random(random.Random(0), [], attempts=0) is None


def test_the_same_seed_draws_the_same_configs() -> None:
    made = space()
    assert made.random(random.Random(3), []) == made.random(random.Random(3), [])


def test_modifiers_are_absent_where_they_modify_nothing() -> None:
    for config in space(only=FEW).all_configs():
        assert ("compile_mode" in config) == (config["compile"] != "off")
        assert ("tome_max_downsample" in config) == (config["tome_ratio"] != 0)


def test_a_modifier_takes_a_possible_value_where_its_default_is_not_one() -> None:
    """SDXL: tokens can be merged at downsampling 2 and 4 only."""
    made = space(make_target(attention_downsamples=(2, 4)), only=("tome_ratio", "tome_max_downsample"))
    assert made.values["tome_max_downsample"] == (2, 4)
    assert made.config({"tome_ratio": 0.5})["tome_max_downsample"] == 2
    assert made.objection(made.config({"tome_ratio": 0.5})) is None


def test_a_modifier_without_a_possible_value_leaves_its_knob_at_the_default() -> None:
    made = space(make_target(attention_downsamples=(16,)))
    assert made.values["tome_max_downsample"] == ()
    assert made.values["tome_ratio"] == (0.0,)
    assert made.impossible["tome_ratio", 0.5] == "this UNet has attention at the downsampling factors 16 only"
    assert made.config({}) == complete({})
    narrow = space(make_target(linear_shapes=((64, 64),)), fix={"quantization_filter": "all"})
    assert "int8_dynamic" in narrow.values["quantization"]


def test_a_knob_that_finds_nothing_to_change_has_only_its_default() -> None:
    made = space(make_target(attention_downsamples=(), linear_shapes=()))
    assert made.values["tome_ratio"] == (0.0,)
    assert made.values["quantization"] == ("none",)
    assert made.objection(complete({})) is None


@pytest.mark.parametrize(
    ("fix", "traits", "says"),
    [
        ({"dtype": "fp16"}, {}, "--fix dtype=fp16: diffusers does not support float16 on a CPU."),
        ({"tome_ratio": 0.5}, {"attention_downsamples": (16,)}, "--fix tome_ratio=0.5: this UNet has attention at"),
        (
            {"quantization": "int8_dynamic", "quantization_filter": "min_features:4096"},
            {},
            "--fix quantization_filter=min_features:4096: selects none of this denoiser's linear layers.",
        ),
        ({"dtype": "bf61"}, {}, "dtype can't be 'bf61': did you mean 'bf16'?"),
        ({"dtpe": "bf16"}, {}, "unknown knob 'dtpe': did you mean 'dtype'?"),
    ],
)
def test_fixing_an_unavailable_value_is_refused(fix: dict[str, Value], traits: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as caught:
        space(make_target(**traits), fix=fix)  # type: ignore[arg-type]
    assert str(caught.value).startswith(says)


def test_excluding_a_knob_that_is_not_one_is_refused() -> None:
    with pytest.raises(UserError, match="unknown knob 'complie': did you mean 'compile'"):
        space(exclude=("complie",))


def test_the_demos_space_can_be_listed_on_a_cpu() -> None:
    made = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
    count = made.count()
    assert count is not None
    assert count > 100


def test_a_modifier_of_a_knob_that_stays_at_its_default_can_not_be_fixed() -> None:
    with pytest.raises(UserError, match="--fix compile_mode=default: not available, because compile stays at off"):
        make_space(
            make_target(),
            SpaceFile(),
            fix={"compile": "off", "compile_mode": "default"},
            exclude=(),
            baseline=complete({}),
        )


def test_a_whole_number_is_taken_for_a_ratio() -> None:
    assert complete({"tome_ratio": 0}) == complete({"tome_ratio": 0.0})


@pytest.mark.parametrize(
    ("later", "gone", "kept"),
    [
        (("lora",), {"qkv_fusion": True, "quantization": "int8_weight_only"}, {"attention": "vanilla"}),
        (("ip_adapter",), {"qkv_fusion": True, "attention": "vanilla"}, {"conv1x1_as_linear": True}),
    ],
)
def test_what_would_not_survive_an_adapter_put_on_later_is_not_searched(
    later: tuple[Change, ...], gone: dict[str, Value], kept: dict[str, Value]
) -> None:
    made = make_space(make_target(), SpaceFile(), fix={}, exclude=(), baseline=complete({}), later=later)
    for name, value in gone.items():
        assert value not in made.values[name]
        assert f"(--{later[0].replace('_', '-')}-later)" in str(made.objection(complete({name: value})))
    for name, value in kept.items():
        assert value in made.values[name]
    [(name, value), *_] = gone.items()
    with pytest.raises(UserError, match=f"--fix {name}={value}: .*-later"):
        make_space(make_target(), SpaceFile(), fix={name: value}, exclude=(), baseline=complete({}), later=later)


def test_what_acts_in_processors_is_not_offered_where_each_call_replaces_them() -> None:
    offered: dict[str, tuple[Value, ...]] = {"qkv_fusion": (False, True), "vae_slicing": (False, True)}
    made = SearchSpace(make_target(sets_processors=True, batch=2), offered)
    assert made.values == {"qkv_fusion": (False,), "vae_slicing": (False, True)}
    why = "acts in the attention processors, which each call of StableDiffusionPipeline replaces"
    assert made.impossible == {("qkv_fusion", True): why}
    assert SearchSpace(make_target(batch=2), offered).values == offered


def test_a_value_that_clashes_with_the_first_values_of_all_others_is_named_once() -> None:
    space = make_space(make_target(gpu(8, 0)), SpaceFile(), fix={}, exclude=(), baseline=complete({}))
    named = space.clashes()
    needs_half = "nothing is multiplied in float16 with dtype=fp32, so fp16_accumulation would not act"
    assert named[needs_half] == ["fp16_accumulation=True"]
    half = needs_half.replace("fp32", "bf16")
    assert named[half] == ["dtype=bf16 + fp16_accumulation=True"]
    assert all(len(pairs) == len(set(pairs)) for pairs in named.values())


def test_clashes_of_many_values_with_many_share_a_line_and_modifiers_are_no_clashes_of_their_own() -> None:
    space = make_space(make_target(gpu(8, 0)), SpaceFile(), fix={}, exclude=(), baseline=complete({}))
    named = space.clashes()
    whole = "a cache decides at each step what to compute, which only regional compilation supports"
    [line] = named[whole]
    assert line.startswith("cache=deepcache:3, deepcache:5 + compile=denoiser, denoiser+vae")
    graphs = "CUDA graphs do not support offloading, which moves the weights at every call"
    assert not any("compile_encoders" in line for line in named[whole])
    assert named[graphs] == ["compile_mode=reduce-overhead, max-autotune + offload=model"]
    assert not any("group_offload" in line for line in named[graphs])
    assert not any("compile" in line and "group_offload" in line for lines in named.values() for line in lines)
    regional = "the CUDA graph of each region overwrites the output of the one before, which the next one reads"
    assert not any(line.startswith("compile_mode=") for line in named.get(regional, ()))
