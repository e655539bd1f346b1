"""A transformer from a GGUF file (--gguf): its facts, which settings are refused, what is drawn, and faulty files."""

import json
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import pytest
import torch
from conftest import make_target
from diffusers import DiffusionPipeline, FluxTransformer2DModel
from made_up import measured, record
from tiny_pipes import draw, tiny_pipe, tiny_pipeline, tiny_workload

from autotune.building import build
from autotune.errors import UserError
from autotune.isolation import RUN_CODE
from autotune.knobs import complete, find_knob, footprint
from autotune.pipeline import Pipeline, Traits
from autotune.pipelines import factory, parts, resolve
from autotune.pipelines.adapters.gguf_file import denoiser_of
from autotune.pipelines.components import components_of
from autotune.pipelines.inspect import _quantized, _sequential_fault, traits_of
from autotune.pipelines.locate import folder_of, revisions
from autotune.production.fingerprint import file_differences
from autotune.production.plain_script import write_text
from autotune.production.tuned_config import TunedConfig
from autotune.tuning.export import export

EXAMPLE = Path(__file__).parents[2] / "examples" / "flux_gguf.py"
FAMILY = "FluxPipeline"
BF16 = complete({"dtype": "bf16"})


class Case(NamedTuple):
    pipeline: Pipeline
    traits: Traits
    packed: int  # bytes of the tensors in the file
    file: Path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="module")
def case(root: Path) -> Case:
    """A tiny checkpoint, with a file of its transformer in 8 bits (Q8_0)."""
    folder, file = Path(tiny_pipeline(FAMILY, root).source), root / "tiny.gguf"
    packed = _write(folder, file)
    pipeline = resolve(str(folder), gguf=str(file))
    return Case(pipeline, traits_of(pipeline), packed, file)


def _write(folder: Path, file: Path, leave_out: str = "-") -> int:
    weights = FluxTransformer2DModel.from_pretrained(folder / "transformer", dtype=torch.float32).state_dict()
    writer = gguf.GGUFWriter(file, "flux")
    eight, total = gguf.GGMLQuantizationType.Q8_0, 0
    for name, tensor in weights.items():
        if name.startswith(leave_out):
            continue
        values = tensor.numpy()
        packs = values.ndim == 2 and values.shape[1] % 32 == 0
        held = gguf.quants.quantize(values, eight) if packs else values
        writer.add_tensor(name, held, raw_dtype=eight if packs else None)
        total += held.nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return total


def target(case: Case) -> Any:
    """The case as a search would measure it."""
    found = {"traits": case.traits, "scorer": None, **revisions(case.pipeline)}
    return make_target().model_copy(
        update={"pipeline": case.pipeline.model_copy(update=found), "workload": tiny_workload(FAMILY)}
    )


def test_what_is_known_of_it_is_what_is_known_of_plain_weights(case: Case, root: Path) -> None:
    plain = traits_of(tiny_pipeline(FAMILY, root))
    assert case.traits.quantized == {"transformer": "GGUF, Q8_0"}
    assert case.traits.unknown == plain.unknown
    for trait in ("linear_shapes", "step_attention", "repeated_blocks", "block_caches", "whole_graph_fault"):
        assert getattr(case.traits, trait) == getattr(plain, trait), trait


def test_settings_that_would_change_its_packed_layers_are_refused(case: Case) -> None:
    made = target(case)
    said = "the checkpoint's transformer is quantized already (GGUF, Q8_0)"
    refused: tuple[tuple[str, Any], ...] = (
        ("quantization", "int8_weight_only"), ("qkv_fusion", True), ("layerwise_casting", "float8_e4m3fn")
    )  # fmt: skip
    for name, value in refused:
        assert find_knob(name).why_not(value, made) == said
        assert find_knob(name).why_not(find_knob(name).default, made) is None
    assert find_knob("quantize_text_encoder").why_not("int8_weight_only", made) is None
    moved = {value: find_knob("offload").clash(complete({"offload": value}), made) for value in ("sequential", "model")}
    assert moved == {
        "sequential": "sequential offloading can't move weights of the class GGUFParameter (KeyError)",
        "model": None,
    }


def test_its_footprint_is_the_bytes_that_it_holds_in_every_format(case: Case) -> None:
    components = components_of(case.pipeline)
    target = make_target(components=components)
    sixteen, full = (
        {part.component.name: part.bytes for part in footprint(complete({"dtype": dtype}), target).parts}
        for dtype in ("bf16", "fp32")
    )
    stored = {part.name: part.stored for part in components}
    assert stored["transformer"].keys() == {"Q8_0", "F32"}
    assert stored["text_encoder"].keys() == {"F32"}
    assert sixteen["transformer"] == full["transformer"] == case.packed
    assert sixteen["text_encoder"] < full["text_encoder"]


@pytest.fixture(scope="module")
def pipe(case: Case) -> Any:
    made = build.load(case.pipeline, BF16, "cpu")
    made.set_progress_bar_config(disable=True)
    build.apply(made, BF16, tiny_workload(FAMILY), "cpu")
    return made


def test_it_draws_nearly_the_picture_of_the_plain_weights(pipe: Any, root: Path) -> None:
    layers = [m for m in parts.denoiser(pipe).modules() if type(m).__name__ == "GGUFLinear"]
    assert layers
    assert all(layer.weight.dtype == torch.uint8 for layer in layers)
    plain = draw(tiny_pipe(FAMILY, root, dtype="bf16")[0], FAMILY)
    assert 0 < np.abs(draw(pipe, FAMILY) - plain).mean() < 0.05


def test_the_example_builds_the_same_pipe_in_a_function(case: Case, pipe: Any, root: Path) -> None:
    text = EXAMPLE.read_text()
    for name, value in (("CHECKPOINT", case.pipeline.source), ("FILE", case.file)):
        [line] = [line for line in text.splitlines() if line.startswith(f"{name} = ")]
        text = text.replace(line, f"{name} = {str(value)!r}")
    (root / "flux_gguf.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "_allowed", set())
        pipeline = resolve("demo", factory=f"{root / 'flux_gguf.py'}:make", run_code=True)
        patch.setenv(RUN_CODE, factory.variables([pipeline])[RUN_CODE])
        own = factory.make(pipeline, torch.bfloat16)
    assert _quantized(pipeline, own) == {"transformer": "GGUFQuantizer"}
    assert "GGUFParameter" in str(_sequential_fault(pipeline, own))
    theirs, ours = own.transformer.state_dict(), pipe.transformer.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name].data, ours[name].data) for name in ours)


def test_the_exported_file_and_its_plain_script_draw_the_same_picture(case: Case, pipe: Any, tmp_path: Path) -> None:
    tuned = export(record(target(case)), measured(1, {"dtype": "bf16"}, latency_s=0.5), measured(0), None)
    tuned.save(tmp_path / "best.json")
    loaded = TunedConfig.load(tmp_path / "best.json")
    assert loaded.pipeline.gguf == str(case.file)
    assert loaded.digest == tuned.digest != tuned.model_copy(update={"pipeline": _without(tuned.pipeline)}).digest
    write_text(tuned, "python", tmp_path / "draw.py")
    space = runpy.run_path(str(tmp_path / "draw.py"))
    space["pipe"].set_progress_bar_config(disable=True)
    prompt = tiny_workload(FAMILY).prompts[0]
    expected = pipe([prompt], generator=[torch.Generator("cpu").manual_seed(3)]).images[0]
    assert np.array_equal(np.asarray(space["draw"]([prompt], [3])[0]), np.asarray(expected))


def _without(pipeline: Pipeline) -> Pipeline:
    return pipeline.model_copy(update={"gguf": None})


def test_a_file_that_was_replaced_is_told(case: Case, tmp_path: Path) -> None:
    made, other = target(case), tmp_path / "tiny.gguf"
    other.write_bytes(case.file.read_bytes())
    moved = made.model_copy(update={"pipeline": made.pipeline.model_copy(update={"gguf": str(other)})})
    assert file_differences(moved) == []
    with other.open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\1" * 8)
    assert file_differences(moved) == [f"the files of {other} are not those that were measured."]


def test_a_file_as_pipeline_is_one_sentence_with_the_way(tmp_path: Path) -> None:
    (tmp_path / "flux.gguf").touch()
    with pytest.raises(UserError) as caught:
        resolve(str(tmp_path / "flux.gguf"))
    assert str(caught.value) == (
        f"'{tmp_path}/flux.gguf' holds a denoiser alone: name the pipeline that it belongs to, such as --pipeline "
        f"flux-dev --gguf {tmp_path}/flux.gguf."
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gguf": "nowhere.gguf"}, "--gguf takes a .gguf file"),
        ({"gguf": "owner/name:x.safetensors"}, "--gguf takes a .gguf file"),
        ({"gguf": __file__}, "this is no GGUF file"),
        ({"gguf": "owner/name:x.gguf", "weights": "random"}, "random weights take the place"),
        ({"gguf": "owner/name:x.gguf", "lora": "owner/lora"}, "--lora owner/lora: it changes weights"),
        ({"gguf": "owner/name:x.gguf", "ip_adapter": "owner/name:x.safetensors"}, "--ip-adapter owner/name:x.safe"),
        ({"lora": "owner/name:x.gguf"}, "--lora owner/name:x.gguf: the weight after the colon"),
    ],
)
def test_words_that_can_not_be_are_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=r"^--\S.*\.$") as caught:
        resolve("flux-dev", **options)
    assert said in str(caught.value)


def test_files_that_do_not_fit_are_one_sentence(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = case.file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    _write(Path(case.pipeline.source), tmp_path / "part.gguf", leave_out="proj_out")
    said = {"cut.gguf": "can't be read: ", "part.gguf": "it does not fit FluxTransformer2DModel of "}
    assert {name: said[name] in refused(case, tmp_path / name) for name in said} == dict.fromkeys(said, True)
    with torch.device("meta"):
        empty = torch.nn.Linear(2, 2)
    monkeypatch.setattr(FluxTransformer2DModel, "from_single_file", lambda *_, **__: empty)
    assert "it lacks 2 weights of FluxTransformer2DModel of " in refused(case, case.file)


def refused(case: Case, file: Path) -> str:
    with pytest.raises(UserError) as caught:
        build.load(resolve(case.pipeline.source, gguf=str(file)), BF16, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pipeline_with_several_denoisers_needs_a_function(tmp_path: Path) -> None:
    two = {name: ["diffusers", "WanTransformer3DModel"] for name in ("transformer", "transformer_2")}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline", **two}))
    with pytest.raises(UserError, match=r"several denoisers \(transformer, transformer_2\): build the pipe"):
        denoiser_of(tmp_path, "x.gguf")


def test_the_weights_in_its_place_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}')
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **how: str(tmp_path))
    monkeypatch.setattr(DiffusionPipeline, "download", lambda _, **how: asked.append(how) or str(tmp_path))
    folder_of(resolve("owner/flux", gguf="owner/name:x.gguf"))
    folder_of(resolve("owner/flux"))
    assert ["transformer" in how for how in asked] == [True, False]
