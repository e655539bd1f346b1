"""What people do with a pipe that was loaded: it draws the right picture, or says no. Never another one in silence."""

import copy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import logged_warnings
from diffusers import DiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from loaded import FLUX, UNET, adapter_of, loaded, lora_of, target_of
from PIL import Image
from safetensors.torch import load_file
from tiny_pipes import draw, tiny_pipe, tiny_workload

from autotune.building import build
from autotune.building.changes import objection
from autotune.config import Value
from autotune.errors import UserError
from autotune.knobs import all_knobs, complete
from autotune.pipelines import parts
from autotune.production import compiled_shapes
from autotune.study.space import SearchSpace
from autotune.study.space_file import read_space_file
from autotune.workload import Workload

DEMO = Path(__file__).parents[2] / "search_spaces" / "demo.toml"
EMBEDS = [torch.ones(2, 1, 1, 32)]  # of an IP-Adapter's picture, in place of its image encoder
SAME_TO_DYNAMO = ("compile_mode", "inductor_flags")  # only Inductor reads them


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guard")


@pytest.fixture
def graphs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile captures graphs and runs them as they are, without Inductor. Other sizes run uncompiled."""
    own = torch.compile

    def compile(model: Any = None, *, options: object = None, **how: Any) -> Any:
        return own(model, **how, backend="eager")

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(compiled_shapes, "MORE", 0)
    torch._dynamo.reset()


def workloads(family: str) -> tuple[Workload, Workload]:
    """A short call, and one in which more settings have something to do: a batch, two tiles and more steps."""
    short = tiny_workload(family, steps=2)
    return short, short.model_copy(update={"width": short.width + 8, "batch": 2, "steps": 5})


def settings(family: str, root: Path) -> list[tuple[Workload, dict[str, Value]]]:
    """Every setting that this family can have on a processor, each alone, with the call that it can have it in.

    Offered are all values of all knobs, and those of the demo's space. Numbers take the same code, so one stands for
    all of a knob's. So does one of what is compiled, which takes seconds.
    """
    named = read_space_file(DEMO).knobs
    offered = {name: tuple(dict.fromkeys((*k.values, *named.get(name, ())))) for name, k in all_knobs().items()}
    offered["encoding"] += ("once",)
    found: dict[tuple[str, object], tuple[Workload, dict[str, Value]]] = {}
    for workload in workloads(family):
        space = SearchSpace(target_of(family, root, workload), offered)
        for name, values in space.values.items():
            knob = all_knobs()[name]
            possible = [value for value in values if value != knob.default]
            for value in possible[: 0 if name in SAME_TO_DYNAMO else 1 if name == "compile" else None]:
                kind = value.partition(":")[0] if isinstance(value, str) else type(value)
                for one in [{name: value}] if knob.modifies is None else beside(knob.modifies, space, {name: value}):
                    if (name, kind) not in found and space.objection(complete(one)) is None:
                        found[name, kind] = workload, one
    return list(found.values())


def beside(modified: str, space: SearchSpace, values: dict[str, Value]) -> list[dict[str, Value]]:
    """The values beside each one of the knob that they modify."""
    return [{modified: value} | values for value in space.values[modified] if value != all_knobs()[modified].default]


def drawn(pipe: Any, workload: Workload, **call: Any) -> np.ndarray:
    """The pictures of one call with what the config sets by itself: the steps are its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(workload.batch)]
    return np.asarray(pipe(["a red circle"] * workload.batch, generator=generators, output_type="np", **call).images)


@pytest.fixture(scope="module")
def effect_of_lora(root: Path) -> dict[tuple[str, int], float]:
    """Family and batch -> how much the LoRA changes the pictures of the untouched pipe, as a mean over the pixels."""
    effects = {}
    for family in (UNET, FLUX):
        for workload in workloads(family):
            pipe = loaded(family, root, workload=workload)
            before = drawn(pipe, workload)
            pipe.load_lora_weights(lora_of(pipe))
            effects[family, workload.batch] = float(np.abs(drawn(pipe, workload) - before).mean())
    return effects


def on_and_off(pipe: Any, workload: Workload, before: np.ndarray) -> float | str:
    """Put the LoRA on and off: how much it changed the picture, or why it was refused."""
    try:
        pipe.load_lora_weights(lora_of(pipe))
    except UserError as error:
        return str(error)
    changed = float(np.abs(drawn(pipe, workload) - before).mean())
    pipe.unload_lora_weights()
    return changed


def interrupt(pipe: Any, workload: Workload) -> None:
    def stop(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(pipe, workload, callback_on_step_end=stop)


def in_two_threads(pipe: Any, workload: Workload) -> list[np.ndarray]:
    """A picture of the measured size and a wider one, requested at the same time."""
    pictures: dict[int, np.ndarray] = {}
    wide = workload.width
    threads = [
        threading.Thread(target=lambda width=width: pictures.update({width: drawn(pipe, workload, width=width)}))
        for width in (wide, wide + 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [pictures[width] for width in sorted(pictures)]


@pytest.mark.usefixtures("graphs_only")
@pytest.mark.parametrize("family", [UNET, FLUX])
def test_every_setting_survives_what_people_do_or_says_no(
    family: str, root: Path, effect_of_lora: dict[tuple[str, int], float], tmp_path: Path
) -> None:
    """20 sizes, a LoRA on and off, an interrupted call, two threads, save_pretrained; the picture stays the same."""
    plain = load_file(next((root / family / target_of(family, root).pipeline.known.denoiser).glob("*.safetensors")))
    tried = settings(family, root)
    assert len(tried) > 20

    for number, (workload, values) in enumerate(tried):
        pipe = loaded(family, root, workload=workload, thread_safe=True, **values)
        before = drawn(pipe, workload)
        for width in range(48, 48 + 8 * 20, 8) if "compile" in values else ():
            assert drawn(pipe, workload, width=width, num_inference_steps=1).shape[2] == width
        changed = on_and_off(pipe, workload, before)
        refused = [name for name, value in values.items() if objection("lora", name, value)]
        if refused:
            assert f"{refused[0]}={values[refused[0]]}" in str(changed), values
        else:
            assert not isinstance(changed, str), values
            assert changed > 0.5 * effect_of_lora[family, workload.batch], values
        interrupt(pipe, workload)
        again, wider = in_two_threads(pipe, workload)
        assert np.array_equal(again, before), values
        assert wider.shape[2] == before.shape[2] + 8
        saved = tmp_path / str(number)
        if any(objection("save", name, value) for name, value in values.items()):
            with pytest.raises(UserError, match="Keep the exported JSON, from which it is built again"):
                pipe.save_pretrained(saved)
            assert not saved.exists()
            continue
        pipe.save_pretrained(saved)
        weights = load_file(next((saved / str(parts.denoiser_name(pipe))).glob("*.safetensors")))
        assert weights.keys() == plain.keys(), values
        assert all(torch.equal(weight, plain[name].to(weight.dtype)) for name, weight in weights.items()), values


def test_an_adapter_is_refused_where_it_would_replace_what_was_measured(root: Path) -> None:
    pipe = loaded(UNET, root, attention="sdpa_math")
    with pytest.raises(UserError) as caught:
        pipe.load_ip_adapter("any/one", subfolder="models", weight_name="adapter.bin")
    assert str(caught.value) == (
        "an IP-Adapter can't be put on this pipe: attention=sdpa_math acts in the attention processors, which would be "
        "replaced. Search with --ip-adapter-later, which leaves such settings out."
    )


@pytest.mark.parametrize("values", [{}, {"tome_ratio": 0.5}, {"cache": "deepcache:3"}], ids=str)
def test_an_adapter_goes_on_and_off_where_no_setting_is_in_its_way(values: dict[str, Value], root: Path) -> None:
    pipe = loaded(UNET, root, **values)
    before = draw(pipe, UNET)
    adapter_of(pipe)
    with torch.no_grad():
        assert len(pipe("a red circle", ip_adapter_image_embeds=EMBEDS).images) == 1
    pipe.unload_ip_adapter()
    assert np.array_equal(draw(pipe, UNET), before)


@pytest.mark.parametrize("values", [{"qkv_fusion": True}, {"attention": "vanilla"}, {"attention": "sliced"}], ids=str)
def test_a_setting_that_would_replace_an_adapter_is_refused_and_the_adapter_still_draws(
    values: dict[str, Value], root: Path
) -> None:
    pipe, _ = tiny_pipe(UNET, root)
    adapter_of(pipe)
    [(name, value)] = values.items()
    with pytest.raises(UserError, match=f"{name}={value} would replace the attention processors of the IP-Adapter"):
        build.apply(pipe, complete(values), tiny_workload(UNET), "cpu")
    with torch.no_grad():
        assert len(pipe("a red circle", ip_adapter_image_embeds=EMBEDS).images) == 1


def test_a_forced_kernel_goes_with_an_adapter_that_is_there(root: Path) -> None:
    pipe, _ = tiny_pipe(UNET, root)
    adapter_of(pipe)
    build.apply(pipe, complete({"attention": "sdpa_math"}), tiny_workload(UNET), "cpu")
    with torch.no_grad():
        assert len(pipe("a red circle", ip_adapter_image_embeds=EMBEDS).images) == 1


def test_the_processors_are_guarded_and_their_replacement_is_noticed(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = loaded(UNET, root, attention="vanilla")
    with pytest.raises(UserError, match="attention=vanilla acts in the attention processors"):
        pipe.unet.set_attn_processor(AttnProcessor2_0())
    caplog.clear()
    next(m for m in pipe.unet.modules() if isinstance(getattr(m, "processor", None), AttnProcessor)).set_processor(
        AttnProcessor2_0()
    )
    for _ in range(2):
        draw(pipe, UNET)
    assert logged_warnings(caplog) == [
        f"1 of {len(pipe.unet.attn_processors)} attention processors of this pipe were replaced: attention=vanilla and "
        "the measured numbers don't hold any more."
    ]
    free = loaded(UNET, root, tome_ratio=0.5)
    free.unet.set_attn_processor(AttnProcessor())
    assert draw(free, UNET).shape


def test_a_replaced_part_is_noticed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = loaded(UNET, root)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    caplog.clear()
    for _ in range(2):
        draw(pipe, UNET)
    [said] = logged_warnings(caplog)
    assert said.startswith("the scheduler of this pipe was replaced: ")


def test_a_textual_inversion_draws_what_it_draws_on_the_untouched_pipe(root: Path) -> None:
    """No setting touches the token embeddings, so all of them allow it."""
    embedding = torch.ones(1, 32)

    def drawn(pipe: Any) -> Any:
        pipe.load_textual_inversion({"<it>": embedding})
        with torch.no_grad():
            image = pipe("<it>", generator=torch.Generator().manual_seed(0), num_inference_steps=2).images[0]
        return np.asarray(image, dtype=np.int16)

    plain, _ = tiny_pipe(UNET, root)
    tuned = drawn(loaded(UNET, root, memory_format="channels_last"))
    assert np.abs(tuned - drawn(plain)).max() <= 1, "sums in another order"


def test_another_pipeline_of_the_same_parts_refuses_what_the_pipe_refuses(root: Path) -> None:
    pipe = loaded(UNET, root, qkv_fusion=True)
    other = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    with pytest.raises(UserError, match="qkv_fusion=True computes with fused weights"):
        other.load_lora_weights(lora_of(pipe))
    with pytest.raises(UserError, match="qkv_fusion=True has added fused weights"):
        other.unet.save_pretrained(root / "never")


@pytest.mark.parametrize("own_scheduler", [False, True])
def test_a_cache_draws_nothing_of_another_pipelines_picture(own_scheduler: bool, root: Path) -> None:
    """A pipeline that shares the denoiser computes every step in full, also with a scheduler of its own."""
    start = Image.effect_noise((32, 32), 90).convert("RGB")

    def image_to_image(pipe: Any) -> np.ndarray:
        shared = dict(pipe.components)
        if own_scheduler:
            shared["scheduler"] = copy.deepcopy(pipe.scheduler)
        other: DiffusionPipeline = StableDiffusionImg2ImgPipeline(**shared, requires_safety_checker=False)
        other.set_progress_bar_config(disable=True)
        seeded = torch.Generator().manual_seed(0)
        return np.asarray(other("a blue star", image=start, num_inference_steps=6, generator=seeded).images[0])

    plain, _ = tiny_pipe(UNET, root)
    pipe = loaded(UNET, root, cache="deepcache:3")
    before = draw(pipe, UNET, num_inference_steps=6)
    assert np.array_equal(image_to_image(pipe), image_to_image(plain))
    assert np.array_equal(draw(pipe, UNET, num_inference_steps=6), before)


def test_a_tuned_pipe_can_not_be_deep_copied(root: Path) -> None:
    """A copy of a patched forward would run the original's weights."""
    pipe = loaded(UNET, root, cache="deepcache:3")
    with pytest.raises(UserError, match="load the config again"):
        copy.deepcopy(pipe)
    assert np.array_equal(draw(copy.copy(pipe), UNET), draw(pipe, UNET))
