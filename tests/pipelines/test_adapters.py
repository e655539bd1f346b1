"""An IP-Adapter and textual inversions: named by options, found by the probe, drawn by trials, load and script."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loaded import adapter_of
from made_up import measured, record
from PIL import Image
from safetensors.torch import save_file
from tiny import WIDTH, tiny_checkpoint
from tiny_classes import _vision
from tiny_pipes import tiny_pipe
from whole_path import few_calls, probed, run_trial, some_config, space_of

import autotune
from autotune.building import build
from autotune.errors import UserError
from autotune.execution.probe import _check_tokens
from autotune.knobs import complete
from autotune.pipelines import resolve
from autotune.pipelines.adapters.textual_inversion import tokens
from autotune.pipelines.inspect import traits_of
from autotune.production.plain_script import script
from autotune.production.tuned_config import TunedConfig
from autotune.report import words
from autotune.study_folder import StudyFolder
from autotune.tuning.export import export
from autotune.workload import Prompts, WorkloadRequest

FAMILY = "StableDiffusionPipeline"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion ("sd"), an IP-Adapter for it with its image encoder, and textual inversions."""
    root = tmp_path_factory.mktemp("adapters")
    tiny_checkpoint(FAMILY, root / "sd")
    pipe, _ = tiny_pipe(FAMILY, root)
    state = adapter_of(pipe)
    save_file({f"{group}.{name}": t for group, of in state.items() for name, t in of.items()}, root / "ip.safetensors")
    _vision().save_pretrained(root / "image_encoder")
    save_file({"<it>": torch.ones(1, WIDTH)}, root / "it.safetensors")
    save_file({"emb_params": torch.ones(1, WIDTH)}, root / "bad-hands.safetensors")
    save_file({"<wide>": torch.ones(1, 2 * WIDTH)}, root / "wide.safetensors")
    return root


def pictures(pipe: Any, prompt: str = "a red circle", **more: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    how = {"width": 32, "height": 32, "num_inference_steps": 2, "output_type": "np"}
    with torch.no_grad():
        return np.asarray(pipe(prompt, generator=noise, **how, **more).images[0])


def loaded(root: Path, **options: Any) -> Any:
    return build.load(resolve(str(root / "sd"), **options), complete({}), "cpu")


def test_a_reference_picture_guides_and_knobs_that_would_drop_its_adapter_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_calls(monkeypatch)
    target = probed(root / "sd", side=32, steps=2, ip_adapter=f"{root / 'ip.safetensors'}:0.6")
    assert target.pipeline.known.inputs == {"ip_adapter_image": "reference"}
    assert target.pipeline.known.unknown == {}, "the rehearsed calls know the adapter"
    assert target.pipeline.part_revisions["ip_adapter"].startswith("files-")
    space = space_of(target)
    for name, value in (("qkv_fusion", True), ("attention", "vanilla"), ("attention", "sliced")):
        assert "the attention processors of the IP-Adapter" in space.impossible[name, value]
    assert "no callback can change that" in space.impossible["guidance_cutoff", 0.6]
    assert any(name == "attention" or len(values) > 1 for name, values in space.free.items())
    study = StudyFolder(root / "study")
    baseline = run_trial(study, target, 0, complete({}))
    trial = run_trial(study, target, 1, some_config(space, "adapter"))
    tuned = export(record(target, space=space.values), trial, baseline, None)
    tuned.save(study.best)
    pipe = autotune.load(study.best, device="cpu", local_files_only=True)
    light, dark = (Image.new("RGB", (32, 32), colour) for colour in ("white", "black"))
    assert np.abs(pictures(pipe, ip_adapter_image=light) - pictures(pipe, ip_adapter_image=dark)).max() > 0.01
    text = script(TunedConfig.load(study.best), "best.py")
    assert f"pipe.load_ip_adapter({str(root)!r}, subfolder='', weight_name='ip.safetensors')" in text
    assert "pipe.set_ip_adapter_scale(0.6)" in text
    assert "ip_adapter_image=[picture('ip_adapter.png', 'RGB')],\n" in text


def test_the_scale_says_how_strongly_the_picture_guides(root: Path) -> None:
    reference = Image.new("RGB", (32, 32), "white")
    drawn = {
        scale: pictures(loaded(root, ip_adapter=f"{root / 'ip.safetensors'}{scale}"), ip_adapter_image=reference)
        for scale in (":0", "", ":1")
    }
    assert np.array_equal(drawn[""], drawn[":1"])
    assert np.abs(drawn[":0"] - pictures(loaded(root))).max() < 1e-5
    assert np.abs(drawn[""] - drawn[":0"]).max() > 0.01


def test_a_textual_inversion_draws_what_the_untouched_pipe_draws_with_it(root: Path) -> None:
    pipe = loaded(root, textual_inversion=[str(root / "it.safetensors"), f"{root / 'bad-hands.safetensors'}:<bad>"])
    own = loaded(root)
    own.load_textual_inversion(root, weight_name="it.safetensors")
    assert np.array_equal(pictures(pipe, "a <it>"), pictures(own, "a <it>"))
    assert np.abs(pictures(pipe, "a <it>") - pictures(loaded(root), "a <it>")).max() > 0
    assert {"<it>", "<bad>"} <= pipe.tokenizer.get_vocab().keys()


def test_the_probe_finds_the_tokens_refuses_one_that_no_prompt_has_and_the_script_loads_them(root: Path) -> None:
    target = probed(root / "sd", side=32, steps=2, textual_inversion=[str(root / "it.safetensors")])
    [(source, token)] = target.pipeline.textual_inversions.items()
    assert (source, token) == (str(root / "it.safetensors"), "<it>")
    named = resolve("sd15", textual_inversion=str(root / "bad-hands.safetensors"))
    named = named.model_copy(update=tokens(named))
    assert [*named.textual_inversions.values()] == ["bad-hands"], "the file's name, where it holds no token"
    request = WorkloadRequest(prompts=Prompts(texts=("a <it>",)))
    _check_tokens(target.pipeline, request)
    with pytest.raises(UserError, match="its token 'bad-hands' is in no prompt: write it into --prompts or"):
        _check_tokens(named, request)
    _check_tokens(named, WorkloadRequest(prompts=request.prompts, negative_prompt="bad-hands"))
    text = script(export(record(target), measured(1, {"dtype": "bf16"}), measured(0), None), "best.py")
    which = "token='<it>', use_safetensors=True, weight_name='it.safetensors'"
    assert f"pipe.load_textual_inversion({str(root)!r}, {which})" in text


def test_what_does_not_fit_is_one_sentence(root: Path) -> None:
    with pytest.raises(UserError, match=r"the textual inversion '.*wide.safetensors' does not fit StableDiffusionPipe"):
        loaded(root, textual_inversion=str(root / "wide.safetensors"))
    with pytest.raises(UserError, match=r"it\.safetensors is not an IP-Adapter: it has no tensors of image_proj and"):
        loaded(root, ip_adapter=str(root / "it.safetensors"))
    (root / "alone").mkdir()
    (root / "ip.safetensors").rename(root / "alone" / "ip.safetensors")
    try:
        with pytest.raises(UserError, match="it needs the folder image_encoder beside it"):
            loaded(root, ip_adapter=str(root / "alone" / "ip.safetensors"))
    finally:
        (root / "alone" / "ip.safetensors").rename(root / "ip.safetensors")


def test_a_pipeline_that_takes_neither_is_refused_by_the_probe(root: Path) -> None:
    tiny_checkpoint("PixArtSigmaPipeline", root / "pixart")
    with pytest.raises(UserError, match="autotune loads IP-Adapters into UNets, and PixArtSigmaPipeline has none"):
        traits_of(resolve(str(root / "pixart"), ip_adapter=str(root / "ip.safetensors")))
    with pytest.raises(UserError, match=r"--textual-inversion .*: PixArtSigmaPipeline takes none"):
        traits_of(resolve(str(root / "pixart"), textual_inversion=str(root / "it.safetensors")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ip_adapter": "gone.safetensors"}, "--ip-adapter takes a .safetensors file"),
        ({"ip_adapter": "owner/name:models/a.safetensors:much"}, "the scale after the colon is a number"),
        ({"textual_inversion": "gone.pt"}, "--textual-inversion takes a .safetensors file"),
        ({"textual_inversion": ["owner/name", "owner/name:<it>"]}, "is given twice"),
        ({"ip_adapter": "owner/name:a.safetensors", "weights": "random"}, "random weights have learned nothing"),
    ],
)
def test_bad_options_are_one_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        resolve("sd15", **options)


def test_files_of_the_hub_are_named_with_their_path_and_told_again_in_the_command() -> None:
    adapter, inversion = "h94/IP-Adapter:models/ip-adapter_sd15.safetensors", "owner/name"
    pipeline = resolve("sd15", ip_adapter=f"{adapter}:0.5", textual_inversion=f"{inversion}:<it>")
    assert (pipeline.ip_adapter, pipeline.ip_adapter_scale) == (adapter, 0.5)
    assert pipeline.added == {"ip_adapter": adapter, "textual_inversion": inversion}
    told = words.options(pipeline)
    assert told == ["--ip-adapter", f"{adapter}:0.5", "--textual-inversion", f"{inversion}:<it>"]
