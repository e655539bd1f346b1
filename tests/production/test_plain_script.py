"""A plain script draws what the config draws, in a process where autotune can not be imported."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TRAITS, gpu, make_target
from made_up import measured, record
from programs import run_program
from tiny import tiny_checkpoint

from autotune import demo
from autotune.config import Value
from autotune.devices import find_device
from autotune.devices.probe import probe_device, versions
from autotune.errors import UserError
from autotune.knobs import all_knobs, complete
from autotune.pipelines import resolve
from autotune.pipelines.inputs import PICTURES
from autotune.pipelines.inspect import traits_of
from autotune.pipelines.locate import revision_of
from autotune.production.plain_script import markdown, script, write_text
from autotune.production.tuned_config import TunedConfig
from autotune.study.space_file import shipped_space_file
from autotune.tuning.export import export

# Pipelines that start from pictures, and one whose call would make another size than the one asked for.
FED = (
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "PixArtSigmaPipeline",
)
PROMPTS = ["a small blue star at the center on a yellow background", "a large red circle at the top"]


def tuned(batch: int = 1, side: int = 64, device: Any = None, **values: Value) -> TunedConfig:
    """A config of the demo as a study exports it, in three steps."""
    target = make_target(device or probe_device(find_device("cpu")), batch=batch, side=side)
    workload = target.workload.model_copy(update={"steps": 4})
    pipeline = target.pipeline.model_copy(update={"revision": revision_of(demo.PIPELINE)})
    target = target.model_copy(update={"workload": workload, "pipeline": pipeline, "versions": versions()})
    return export(record(target), measured(1, values, latency_s=0.5), measured(0), None)


def of_checkpoint(class_name: str, folder: Path) -> TunedConfig:
    """A config of a tiny checkpoint, with the pictures that it starts from beside it."""
    pipeline = resolve(str(tiny_checkpoint(class_name, folder / class_name)), "pretrained")
    pipeline = pipeline.model_copy(
        update={"traits": traits_of(pipeline), "revision": revision_of(Path(pipeline.source)), "scorer": None}
    )
    target = make_target(probe_device(find_device("cpu")))
    workload = target.workload.model_copy(update={"steps": 4})
    target = target.model_copy(update={"pipeline": pipeline, "workload": workload, "versions": versions()})
    size = (workload.width, workload.height)
    for name, what in pipeline.known.inputs.items():
        PICTURES[what](1, *size).save(folder / f"{name.removesuffix('_image')}.png")
    return export(record(target), measured(1, {"dtype": "bf16"}, latency_s=0.5), measured(0), None)


# Between them every knob of the demo's space that can act on a processor, and those that it holds at their defaults.
CONFIGS: dict[str, dict[str, Any]] = {
    "layout": {"dtype": "bf16", "qkv_fusion": True, "memory_format": "channels_last", "steps": 3},
    "merging": {"tome_ratio": 0.5, "tome_max_downsample": 2, "attention": "vanilla", "guidance_cutoff": 0.6},
    "cached": {"quantization": "int8_weight_only", "cache": "deepcache:3"},
    "words": {"quantize_text_encoder": "int8_weight_only"},
    "quantized": {"quantization": "int8_dynamic", "quantization_filter": "min_features:128", "conv1x1_as_linear": True},
    "tiles": {"side": 128, "batch": 2, "vae_tiling": True, "vae_slicing": True, "attention": "sliced"},
    "others": {"scheduler": "euler", "layerwise_casting": "float8_e4m3fn"},
    "compiled": {"compile": "regional", "tome_ratio": 0.25},
}

WITHOUT_AUTOTUNE = """
import json, os, runpy, sys
import numpy as np

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "autotune":
            raise ImportError("autotune is not installed here")

sys.meta_path.insert(0, Nowhere())
asked, made = json.loads(sys.argv[1]), {}
for name, (path, count) in asked["scripts"].items():
    os.chdir(os.path.dirname(path))
    space = runpy.run_path(path)
    space["pipe"].set_progress_bar_config(disable=True)
    made[name] = np.stack([np.asarray(p) for p in space["draw"](asked["prompts"][:count], range(count))])
assert not [name for name in sys.modules if name.split(".")[0] == "autotune"]
np.savez(asked["out"], **made)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The pictures of every script."""
    folder = tmp_path_factory.mktemp("scripts")
    asked: dict[str, Any] = {"scripts": {}, "prompts": PROMPTS, "out": str(folder / "made.npz")}
    for name, values in CONFIGS.items():
        write_text(tuned(**values), "python", folder / f"{name}.py")
        asked["scripts"][name] = [str(folder / f"{name}.py"), values.get("batch", 1)]
    for name in FED:
        (folder / name).mkdir()
        write_text(of_checkpoint(name, folder / name), "python", folder / name / "draw.py")
        asked["scripts"][name] = [str(folder / name / "draw.py"), 1]
    done = run_program("-c", WITHOUT_AUTOTUNE, json.dumps(asked), here=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(folder / "made.npz")


@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")  # torch deprecates what it imports to compile
@pytest.mark.parametrize("name", CONFIGS)
def test_a_plain_script_draws_the_config_s_pictures_bit_for_bit(drawn: Any, name: str) -> None:
    import torch

    pipe = tuned(**CONFIGS[name]).pipeline_on("cpu", strict=True)
    pipe.set_progress_bar_config(disable=True)
    count = CONFIGS[name].get("batch", 1)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(count)]
    expected = np.stack([np.asarray(p) for p in pipe(PROMPTS[:count], generator=generators).images])
    assert np.array_equal(drawn[name], expected)


@pytest.mark.parametrize("name", FED)
def test_a_script_starts_from_the_user_s_pictures_where_the_pipeline_does(
    drawn: Any, name: str, tmp_path: Path
) -> None:
    import torch

    made = of_checkpoint(name, tmp_path)
    pipe = made.pipeline_on("cpu", strict=True)
    pipe.set_progress_bar_config(disable=True)
    given = {
        argument: [PICTURES[what](1, made.workload.width, made.workload.height)]
        for argument, what in made.inputs.items()
    }
    expected = pipe(PROMPTS[:1], generator=[torch.Generator("cpu").manual_seed(0)], **given).images
    assert np.array_equal(drawn[name], np.stack([np.asarray(picture) for picture in expected]))


def test_the_configs_above_cover_every_knob_of_the_demo_s_space() -> None:
    """Those that act on a GPU only, and on other pipelines, have lines too: see the contract below."""
    covered = {name for values in CONFIGS.values() for name in values}
    only_on_gpus = {"tf32", "offload", "group_offload", "scheduler_sync", "inductor_flags", "compile_mode"}
    only_on_gpus |= {"cudnn_benchmark", "fp16_accumulation", "reduced_sums", "tunable_op"}
    only_on_gpus |= {"allocator"}
    by_capture = {"compile_encoders", "compile_shapes"}  # whose lines have tests of their own
    without_lines = {"encoding", "guidance_start"}  # each says why
    assert set(all_knobs()) - covered - only_on_gpus - by_capture - without_lines - {"vae"} == set()
    assert set(shipped_space_file("demo.toml").knobs) <= set(all_knobs())


# All but the defaults of what does nothing then: those are not written at all.
EVERY = [(knob, value) for knob in all_knobs().values() for value in knob.values[0 if knob.load else 1 :]]


@pytest.mark.parametrize(("knob", "value"), EVERY, ids=lambda x: getattr(x, "name", str(x)))
def test_every_value_has_lines_that_can_be_read_or_a_sentence_why_not(knob: Any, value: Value) -> None:
    modified = {knob.modifies: all_knobs()[knob.modifies].values[1]} if knob.modifies else {}
    config = complete({**modified, knob.name: value})
    target = make_target(gpu(9, 0)).model_copy(update={"pipeline": make_target().pipeline})
    if knob.modifies:
        assert knob.script is None, "it is part of the lines of the knob that it modifies"
        knob = all_knobs()[knob.modifies]
    part = knob.script(config, target)
    if part.why_not is not None:
        assert len(part.why_not.split()) > 5
        assert not [*part.imports, *part.load, *part.lines, *part.call]
        return
    compile("\n".join([*part.imports, *part.lines]), knob.name, "exec")
    if value != all_knobs()[knob.name].default and not modified:
        assert part.load or part.lines or part.call
    assert "import autotune" not in "\n".join(part.imports)
    assert "autotune." not in "\n".join([*part.imports, *part.lines, *part.load.values(), *part.call.values()])


def test_what_a_script_can_not_do_is_refused_with_every_reason() -> None:
    with pytest.raises(UserError, match=r"cache=first_block:0.05: .*; attention=sdpa_math: the kernel is"):
        script(tuned(attention="sdpa_math", cache="first_block:0.05"), "a.py")


def test_a_script_says_where_its_figures_come_from_and_nothing_in_the_file_ends_its_docstring() -> None:
    made = tuned(dtype="bf16").model_copy(update={"command": 'autotune """\nimport os'})
    text = script(made, "best.py")
    assert made.about.split(",")[0] in text
    assert 'autotune """' not in text
    assert "\nimport os\n" not in text
    compile(text, "best.py", "exec")


def test_a_hub_s_commit_and_a_fused_lora_are_in_the_script() -> None:
    made = tuned()
    pipeline = made.pipeline.model_copy(update={"source": "owner/name", "revision": "abc123", "lora": "some/lora"})
    text = script(made.model_copy(update={"pipeline": pipeline}), "best.py")
    assert "revision='abc123'" in text
    assert "pipe.load_lora_weights('some/lora', use_safetensors=True, adapter_name='lora')\n" in text
    assert "pipe.set_adapters(['lora'], [1.0])\npipe.fuse_lora(adapter_names=['lora'])\n" in text


def test_a_model_card_names_what_was_changed_and_where_it_was_measured() -> None:
    text = markdown(tuned(dtype="bf16", steps=3), "best.md")
    assert "| `dtype` | `bf16` |" in text
    assert "| `steps` | `3` |" in text
    assert "qkv_fusion" not in text
    assert find_device("cpu").name in text
    assert TRAITS.class_name not in text


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("traits", "class_name", "StableDiffusionPipeline\nimport os"),
        ("traits", "denoiser", "unet.__class__; import os #"),
        ("traits", "text_encoders", ["text_encoder", "x)\nimport os"]),
        ("traits", "size_arguments", ["width=1)\nimport os"]),
        ("traits", "guidance_argument", "x=1); import os; print("),
        ("traits", "inputs", {"image\nimport os": "image"}),
        ("traits", "call_arguments", ["a b"]),
        ("pipeline", "scheduler", "DDIMScheduler\nimport os"),
        ("tuned", "pipeline_class", "StableDiffusionPipeline\nimport os"),
        ("tuned", "inputs", {"image=os.system('')": "image"}),
    ],
)
def test_a_name_in_a_shared_file_is_a_name_or_the_file_is_refused(
    tmp_path: Path, part: str, field: str, value: object
) -> None:
    """These names are written into scripts as they are."""
    data = tuned().to_json()
    assert TunedConfig.model_validate(data)
    {"tuned": data, "pipeline": data["pipeline"], "traits": data["pipeline"]["traits"]}[part][field] = value
    (tmp_path / "best.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=field):
        TunedConfig.load(tmp_path / "best.json")


def test_no_text_of_a_file_becomes_code_or_markup() -> None:
    evil = '"""\nimport os\n<script>alert(1)</script> `x` | y'
    made = tuned(dtype="bf16")
    device = made.device.model_copy(update={"name": evil})
    made = made.model_copy(update={"about": evil, "command": evil, "created": evil, "device": device})
    text = script(made, evil)
    assert ast.dump(_without_docstring(text)) == ast.dump(_without_docstring(script(tuned(dtype="bf16"), "a.py")))
    card = markdown(made, "best.md")
    assert "<script>" not in card
    assert "\nimport os" not in card


def _without_docstring(text: str) -> ast.Module:
    module = ast.parse(text)
    module.body = module.body[1:]
    return module
