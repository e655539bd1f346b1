"""Files for other programs: what each of them takes, what is listed as missing, and text that can't become code."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import gpu, make_target
from made_up import measured, record
from typer.testing import CliRunner

from autotune.cli import app
from autotune.config import Value
from autotune.errors import UserError
from autotune.production.programs import PROGRAMS, cache_dit, comfyui, diffusers, sglang
from autotune.production.programs.handed_on import comment
from autotune.production.tuned_config import TunedConfig
from autotune.tuning.export import export

TRANSFORMER = {
    "denoiser": "transformer",
    "denoiser_class": "FluxTransformer2DModel",
    "dispatches_attention": True,
    "repeated_blocks": ("FluxTransformerBlock",),
}
EVIL = 'a "quoted"\nprompt: !!python/object/apply:os.system ["x"] \u2028 # \\ </script>'


def tuned_for(values: dict[str, Value], source: str = "owner/model", **traits: Any) -> TunedConfig:
    target = make_target(gpu(9, 0), **traits)
    pipeline = target.pipeline.model_copy(update={"source": source, "revision": None, "weights": "pretrained"})
    target = target.model_copy(update={"pipeline": pipeline})
    return export(record(target), measured(1, values), measured(0), None)


def missing(left_out: tuple[str, ...]) -> set[str]:
    return {clause.partition("=")[0].partition(":")[0] for clause in left_out}


def test_cache_dit_takes_cache_attention_and_quantization_of_a_transformer() -> None:
    tuned = tuned_for(
        {"cache": "first_block:0.08", "attention": "sdpa_cudnn", "quantization": "fp8_dynamic", "dtype": "bf16"},
        **TRANSFORMER,
    )
    handed = cache_dit.hand_on(tuned, "best.yaml")
    assert yaml.safe_load(handed.text) == {
        "cache_config": {
            "Fn_compute_blocks": 1,
            "Bn_compute_blocks": 0,
            "residual_diff_threshold": 0.08,
            "max_warmup_steps": 0,
            "num_inference_steps": tuned.workload.steps,
        },
        "attention_backend": "_native_cudnn",
        "quantize_config": {
            "backend": "torchao",
            "quant_type": "float8_per_tensor",
            "regional_quantize": False,
            "exclude_layers": [],
        },
    }
    assert missing(handed.left_out) == {"dtype"}
    assert "# - dtype=bf16: is set on the pipe before" in handed.text


def test_cache_dit_takes_nothing_of_a_unet_and_says_so() -> None:
    with pytest.raises(UserError, match=r"can take none .*cache=deepcache:3: .*this pipeline has unet"):
        cache_dit.hand_on(tuned_for({"cache": "deepcache:3"}), "best.yaml")


def test_cache_dit_is_not_told_a_number_of_blocks_that_only_the_model_says() -> None:
    handed = cache_dit.hand_on(
        tuned_for({"cache": "dbcache:0.12", "attention": "sdpa_cudnn"}, **TRANSFORMER), "best.yaml"
    )
    assert missing(handed.left_out) == {"cache"}
    assert "how many first blocks are computed depends on the model" in handed.text


def test_sglang_takes_what_its_diffusers_backend_sets() -> None:
    values: dict[str, Value] = {"dtype": "bf16", "compile": "regional", "vae_tiling": True, "offload": "model"}
    tuned = tuned_for({**values, "cache": "first_block:0.08", "qkv_fusion": True}, **TRANSFORMER)
    handed = sglang.hand_on(tuned, "best.yaml")
    found = yaml.safe_load(handed.text)
    assert found["model_path"] == "owner/model"
    assert found["backend"] == "diffusers"
    assert found["dit_precision"] == "bf16"
    assert (found["vae_tiling"], found["vae_slicing"]) == (True, False)
    assert found["dit_cpu_offload"] is True
    assert found["enable_torch_compile"] is True
    assert found["num_inference_steps"] == tuned.workload.steps
    assert missing(handed.left_out) == {"cache", "qkv_fusion"}


def test_sglang_compiles_in_its_own_way_only() -> None:
    for values in ({"compile": "denoiser"}, {"compile": "regional", "compile_mode": "max-autotune"}):
        handed = sglang.hand_on(tuned_for({"dtype": "bf16", **values}, **TRANSFORMER), "best.yaml")
        assert yaml.safe_load(handed.text)["enable_torch_compile"] is False
        assert "compile" in missing(handed.left_out)


def test_comfyui_gets_a_workflow_whose_links_end_in_nodes() -> None:
    values: dict[str, Value] = {"tome_ratio": 0.5, "vae_tiling": True, "compile": "denoiser", "scheduler": "euler"}
    tuned = tuned_for({**values, "dtype": "fp16", "conv1x1_as_linear": True}, source="owner/model")
    handed = comfyui.hand_on(tuned, "best.json")
    nodes = json.loads(handed.text)
    links = [v for node in nodes.values() for v in node["inputs"].values() if isinstance(v, list)]
    assert {name for name, _ in links} <= set(nodes)
    kinds = [node["class_type"] for node in nodes.values()]
    assert {"TomePatchModel", "TorchCompileModel", "VAEDecodeTiled", "KSampler", "SaveImage"} <= set(kinds)
    assert nodes["sample"]["inputs"]["sampler_name"] == "euler"
    assert nodes["sample"]["inputs"]["steps"] == tuned.workload.steps
    assert nodes["noise"]["inputs"]["width"] == tuned.workload.width
    assert nodes["checkpoint"]["inputs"]["ckpt_name"] == "model.safetensors"
    assert missing(handed.left_out) >= {"dtype", "conv1x1_as_linear", "the weights"}


@pytest.mark.parametrize(("program", "traits"), [("comfyui", TRANSFORMER), ("sglang", {})])
def test_a_pipeline_that_a_program_can_not_load_is_refused(program: str, traits: dict[str, Any]) -> None:
    source = "owner/model" if program == "comfyui" else "demo"
    with pytest.raises(UserError, match=r"denoiser is a Flux|ships with autotune"):
        PROGRAMS[program](tuned_for({"dtype": "bf16"}, source, **traits), "x")


def test_diffusers_gets_a_script_without_what_needs_other_packages() -> None:
    tuned = tuned_for({"tome_ratio": 0.5, "tome_max_downsample": 2, "dtype": "fp16", "vae_tiling": True})
    handed = diffusers.hand_on(tuned, "best.py")
    assert missing(handed.left_out) == {"tome_ratio", "tome_max_downsample"}
    assert "needs tomesd, which is no part of diffusers" in handed.left_out[0]
    tree = ast.parse(handed.text)
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not {"tomesd", "torchao", "autotune"} & modules
    assert "enable_tiling" in handed.text
    assert "torch.float16" in handed.text


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_text_of_a_shared_file_stays_text(program: str, tmp_path: Path) -> None:
    traits = TRANSFORMER if program in ("cache-dit", "sglang") else {}
    tuned = tuned_for({"dtype": "bf16", "attention": "sdpa_flash", "tome_ratio": 0.5}, **traits)
    workload = tuned.workload.model_copy(update={"prompts": (EVIL,), "negative_prompt": EVIL})
    tuned = tuned.model_copy(update={"workload": workload, "about": EVIL, "command": EVIL})
    text = PROGRAMS[program](tuned, "best").text
    if program == "comfyui":
        assert json.loads(text)["positive"]["inputs"]["text"] == EVIL
    elif program == "diffusers":
        calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute) and n.attr == "system"]
        assert not calls
    else:
        found = yaml.safe_load(text)
        assert found.get("prompt", EVIL) == EVIL
        assert "os" not in found
    assert comment("a\nb\x00\x85c\u2028 d") == "# a b c d"


def test_the_command_lists_what_is_missing_on_standard_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = tuned_for({"vae_tiling": True, "qkv_fusion": True}, **TRANSFORMER)
    monkeypatch.setattr("autotune.tuning.export.export_from", lambda study, pick: tuned)
    done = CliRunner().invoke(app, ["export", str(tmp_path), "--as", "sglang"])
    assert done.exit_code == 0
    assert "not in the file: qkv_fusion=True" in done.stderr
    assert yaml.safe_load((tmp_path / "fastest.sglang.yaml").read_text())["vae_tiling"] is True
    named = CliRunner().invoke(app, ["export", str(tmp_path), "--as", "sglang", "-o", str(tmp_path / "a.conf")])
    assert "a.conf': --as sglang writes a file whose name ends in .yaml" in str(named.exception)
    wrong = CliRunner().invoke(app, ["export", str(tmp_path), "--as", "invokeai"])
    assert isinstance(wrong.exception, UserError)
    assert "--as takes json, python, markdown, diffusers, cache-dit, sglang, comfyui" in str(wrong.exception)
