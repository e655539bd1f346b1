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


def settings(family: str, root: Path) -> list[dict[str, Value]]:
    """Every setting of the demo's space, or of a tiny Flux's, each alone.

    Numbers take the same code, so one stands for all of a knob's. So does one of what is compiled, which takes seconds.
    """
    target = target_of(family, root)
    offered = {name: knob.values for name, knob in all_knobs().items()}
    space = SearchSpace(target, {**offered, **(read_space_file(DEMO).knobs if family == UNET else {})})
    found: list[dict[str, Value]] = []
    for name, values in space.values.items():
        of = all_knobs()[name].modifies
        kinds = {str(value).partition(":")[0] if isinstance(value, str) else type(value): value for value in values}
        some = [value for value in kinds.values() if value != all_knobs()[name].default]
        for value in some[: 0 if name in SAME_TO_DYNAMO else 1 if name == "compile" else None]:
            one = {name: value} if of is None else {of: space.values[of][-1], name: value}
            if (of is None or len(space.values[of]) > 1) and space.objection(complete(one)) is None:
                found.append(one)
    return found


def drawn(pipe: Any, family: str, **call: Any) -> np.ndarray:
    return draw(pipe, family, num_inference_steps=2, **call)


@pytest.fixture(scope="module")
def effect_of_lora(root: Path) -> dict[str, float]:
    """Family -> how much the LoRA changes the pictures of the untouched pipe, as a mean over the pixels."""
    effects = {}
    for family in (UNET, FLUX):
        pipe, _ = tiny_pipe(family, root)
        before = drawn(pipe, family)
        pipe.load_lora_weights(lora_of(pipe))
        effects[family] = float(np.abs(drawn(pipe, family) - before).mean())
    return effects


def on_and_off(pipe: Any, family: str, before: np.ndarray) -> float | str:
    """Put the LoRA on and off: how much it changed the picture, or why it was refused."""
    try:
        pipe.load_lora_weights(lora_of(pipe))
    except UserError as error:
        return str(error)
    changed = float(np.abs(drawn(pipe, family) - before).mean())
    pipe.unload_lora_weights()
    return changed


def interrupt(pipe: Any, family: str) -> None:
    def stop(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(pipe, family, callback_on_step_end=stop)


def in_two_threads(pipe: Any, family: str) -> list[np.ndarray]:
    """A picture of the measured size and a wider one, requested at the same time."""
    pictures: dict[int, np.ndarray] = {}
    wide = tiny_workload(family).width
    threads = [
        threading.Thread(target=lambda width=width: pictures.update({width: drawn(pipe, family, width=width)}))
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
    family: str, root: Path, effect_of_lora: dict[str, float], tmp_path: Path
) -> None:
    """Many sizes, a LoRA on and off, an interrupted call, two threads, save_pretrained; the picture stays the same."""
    plain = load_file(next((root / family / target_of(family, root).pipeline.known.denoiser).glob("*.safetensors")))
    tried = settings(family, root)
    assert len(tried) > 10
    for values in tried:
        pipe = loaded(family, root, thread_safe=True, **values)
        before = drawn(pipe, family)
        for width in range(48, 48 + 8 * 6, 8) if "compile" in values else ():
            assert drawn(pipe, family, width=width).shape[2] == width
        changed = on_and_off(pipe, family, before)
        refused = [name for name, value in values.items() if objection("lora", name, value)]
        if refused:
            assert f"{refused[0]}={values[refused[0]]}" in str(changed), values
        else:
            assert not isinstance(changed, str), values
            assert changed > 0.5 * effect_of_lora[family], values
        interrupt(pipe, family)
        again, wider = in_two_threads(pipe, family)
        assert np.array_equal(again, before), values
        assert wider.shape[2] == before.shape[2] + 8
        saved = tmp_path / str(tried.index(values))
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
            return np.asarray(pipe("<it>", generator=torch.Generator().manual_seed(0), num_inference_steps=2).images[0])

    plain, _ = tiny_pipe(UNET, root)
    assert np.array_equal(drawn(loaded(UNET, root, memory_format="channels_last")), drawn(plain))


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
