"""A transformer from a GGUF file, as examples/flux_gguf.py loads it: its facts, and which settings are refused."""

from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import pytest
import torch
from conftest import make_target
from tiny_pipes import draw, tiny_pipe, tiny_pipeline, tiny_workload

from autotune.building import build
from autotune.errors import UserError
from autotune.isolation import RUN_CODE
from autotune.knobs import complete, find_knob, footprint
from autotune.pipeline import Pipeline, Traits
from autotune.pipelines import factory, parts, resolve
from autotune.pipelines.components import components_of
from autotune.pipelines.inspect import traits_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "flux_gguf.py"
FAMILY = "FluxPipeline"


class Case(NamedTuple):
    pipeline: Pipeline
    traits: Traits
    packed: int  # bytes of the tensors in the file


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The example, with a tiny checkpoint and a file of its transformer in 8 bits (Q8_0)."""
    root = tmp_path_factory.mktemp("gguf")
    folder = Path(tiny_pipeline(FAMILY, root).source)
    packed = _write(folder, root / "tiny.gguf")
    text = EXAMPLE.read_text()
    for name, value in (("CHECKPOINT", folder), ("FILE", root / "tiny.gguf")):
        [line] = [line for line in text.splitlines() if line.startswith(f"{name} = ")]
        text = text.replace(line, f"{name} = {str(value)!r}")
    (root / "flux_gguf.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "_allowed", set())
        pipeline = resolve("demo", factory=f"{root / 'flux_gguf.py'}:make", run_code=True)
        patch.setenv(RUN_CODE, factory.variables([pipeline])[RUN_CODE])
        yield Case(pipeline, traits_of(pipeline), packed)


def _write(folder: Path, file: Path) -> int:
    from diffusers import FluxTransformer2DModel

    weights = FluxTransformer2DModel.from_pretrained(folder / "transformer", dtype=torch.float32).state_dict()
    writer = gguf.GGUFWriter(file, "flux")
    eight, total = gguf.GGMLQuantizationType.Q8_0, 0
    for name, tensor in weights.items():
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


def test_what_is_known_of_it_is_what_is_known_of_plain_weights(case: Case, tmp_path: Path) -> None:
    plain = traits_of(tiny_pipeline(FAMILY, tmp_path))
    assert case.traits.quantized == {"transformer": "GGUFQuantizer"}
    assert case.traits.unknown == plain.unknown
    for trait in ("linear_shapes", "step_attention", "repeated_blocks", "block_caches", "whole_graph_fault"):
        assert getattr(case.traits, trait) == getattr(plain, trait), trait


def test_settings_that_would_change_its_packed_layers_are_refused(case: Case) -> None:
    made = make_target().model_copy(update={"pipeline": case.pipeline.model_copy(update={"traits": case.traits})})
    said = "the checkpoint's transformer is quantized already (GGUFQuantizer)"
    refused: tuple[tuple[str, Any], ...] = (
        ("quantization", "int8_weight_only"), ("qkv_fusion", True), ("layerwise_casting", "float8_e4m3fn")
    )  # fmt: skip
    for name, value in refused:
        assert find_knob(name).why_not(value, made) == said
        assert find_knob(name).why_not(find_knob(name).default, made) is None
    assert find_knob("quantize_text_encoder").why_not("int8_weight_only", made) is None


def test_its_footprint_is_the_bytes_that_it_holds_in_every_format(case: Case) -> None:
    components = components_of(case.pipeline)
    target = make_target(components=components)
    sixteen, full = (
        {part.component.name: part.bytes for part in footprint(complete({"dtype": dtype}), target).parts}
        for dtype in ("bf16", "fp32")
    )
    assert sixteen["transformer"] == full["transformer"] == case.packed
    assert sixteen["text_encoder"] < full["text_encoder"]


def test_it_draws_nearly_the_picture_of_the_plain_weights(case: Case, tmp_path: Path) -> None:
    pipe = build.load(case.pipeline, complete({"dtype": "bf16"}), "cpu")
    pipe.set_progress_bar_config(disable=True)
    build.apply(pipe, complete({"dtype": "bf16"}), tiny_workload(FAMILY), "cpu")
    layers = [m for m in parts.denoiser(pipe).modules() if type(m).__name__ == "GGUFLinear"]
    assert layers
    assert all(layer.weight.dtype == torch.uint8 for layer in layers)
    plain = draw(tiny_pipe(FAMILY, tmp_path, dtype="bf16")[0], FAMILY)
    assert 0 < np.abs(draw(pipe, FAMILY) - plain).mean() < 0.05


def test_a_gguf_file_as_pipeline_is_one_sentence_with_the_way(tmp_path: Path) -> None:
    (tmp_path / "flux.gguf").touch()
    with pytest.raises(UserError) as caught:
        resolve(str(tmp_path / "flux.gguf"))
    assert str(caught.value) == (
        f"'{tmp_path}/flux.gguf' holds a transformer alone: build the pipe around it in a function of your own "
        "(examples/flux_gguf.py), --factory FILE.py:FUNCTION --run-code."
    )
