"""Every technique on every family of pipelines: a value acts on a tiny checkpoint, or is refused with a sentence.

A value that acts draws a finite picture. A knob that does not change the output draws the same picture. Knobs and
families are not named here, apart from the list of checkpoints, so new ones are tested as well.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import copies
import numpy as np
import pytest
import torch
from compiled import captured
from conftest import CPU
from live import difference
from once_a_run import traits_once
from programs import run_program
from tiny import FAMILIES, tiny_checkpoint

from autotune.building import build
from autotune.config import Config, Value
from autotune.devices.probe import versions
from autotune.knob import Knob, Stage
from autotune.knobs import all_knobs, complete, find_knob
from autotune.measure import call_pipe
from autotune.measure.kernels import attention_kernels
from autotune.pipelines import resolve
from autotune.target import Target
from autotune.workload import Workload

CLOSE = 2e-3  # of 1: float32, summed in another order
SEARCHED = [str(folder) for folder in Path(__file__).parents[:2]]
STEPS = 4  # one is left from a picture at a strength of 0.3
STEPS_IN_THE_MIDDLE = 20
# Family -> one of the same modules, whose call starts from words alone.
SISTERS = {
    "StableDiffusionImg2ImgPipeline": "StableDiffusionPipeline",
    "StableDiffusionInpaintPipeline": "StableDiffusionPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLPipeline",
    "StableDiffusionXLInpaintPipeline": "StableDiffusionXLPipeline",
}
OF_MODULES = (Stage.SURGERY, Stage.LAYOUT, Stage.QUANTIZE, Stage.ATTENTION)  # what they change is not the call's
STEPS_OF = {"cache": 7, "guidance_cutoff": 14}  # enough to skip one, or to leave one unguided, from a picture too


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


class Family:
    """A tiny checkpoint, inspected once."""

    def __init__(self, name: str, folder: Path) -> None:
        pipeline = resolve(str(folder))
        traits = traits_once(f"{name}-pretrained", pipeline)
        side = 8 * traits.size_multiple if traits.vae_class else traits.default_width
        self.workload = Workload(
            prompts=("a red circle", "a blue star"),
            width=2 * side if traits.vae_class else side,
            height=2 * side if traits.vae_class else side,
            batch=2,
            steps=STEPS,
            guidance_scale=traits.default_guidance_scale,
        )
        pipeline = pipeline.model_copy(update={"traits": traits})
        self.target = Target(pipeline=pipeline, workload=self.workload, device=CPU, versions=versions())

    def drawn(self, config: Config, steps: int = STEPS) -> tuple[np.ndarray, dict[str, Any]]:
        """The pixels of one call, from 0 to 1, and the effects of the knobs, those that only a call shows included."""
        pipe = copies.load(self.target.pipeline, config)
        pipe.set_progress_bar_config(disable=True)
        workload = self.workload.model_copy(update={"steps": steps})
        effects: dict[str, Any] = build.apply(pipe, config, workload, "cpu")
        acting = [all_knobs()[name] for name, _ in build.acting(config)]
        made: list[np.ndarray] = []
        kernels: dict[str, int] = {}
        with torch.no_grad():
            if any(knob.stage is Stage.COMPILE for knob in acting):
                self.call(pipe, workload)  # compiles, outside of the profile
            if any(knob.verify and knob.reads_kernels for knob in acting):
                kernels = attention_kernels(pipe, lambda: made.append(self.call(pipe, workload)))
            else:
                made.append(self.call(pipe, workload))
        effects |= build.verify(pipe, config, kernels)
        return made[0], effects

    def call(self, pipe: Any, workload: Workload, **more: Any) -> np.ndarray:
        images = call_pipe(pipe, workload, list(workload.prompts), [0, 1], **more)
        return np.stack([np.asarray(image, dtype=np.float32) / 255 for image in images])


@cache
def family(name: str, root: Path) -> Family:
    return Family(name, tiny_checkpoint(name, root / name))


@cache
def default_picture(name: str, root: Path, dtype: Value, steps: int = STEPS) -> np.ndarray:
    return family(name, root).drawn(complete({"dtype": dtype}), steps)[0]


def techniques() -> Iterator[Any]:
    """Every value that is not a default, on every family.

    Without those that compile, which takes a process of its own, and those that change modules which a sister has, too.
    """
    for knob in all_knobs().values():
        for value in knob.values[1:]:
            for name in FAMILIES:
                if knob.stage is not Stage.COMPILE and not (knob.stage in OF_MODULES and name in SISTERS):
                    yield pytest.param(knob, value, name, id=f"{knob.name}={value}-{name}")


def test_sisters_are_made_of_the_same_modules(root: Path) -> None:
    for name, sister in SISTERS.items():
        ours, theirs = (family(n, root).target.pipeline.traits for n in (name, sister))
        assert ours is not None
        assert theirs is not None
        for trait in ("denoiser_class", "vae_class", "text_encoders", "attention_processors", "fuses_qkv"):
            assert getattr(ours, trait) == getattr(theirs, trait), (name, trait)


def config_of(knob: Knob, value: Value, target: Target) -> Config | str:
    """The config in which this value acts, with no other value than it needs, or why there is none."""
    why = knob.why_not(value, target)
    if why:
        return why
    company: dict[str, Value] = {}
    if knob.modifies:
        modified = find_knob(knob.modifies)
        possible = [v for v in modified.values[1:] if not modified.why_not(v, target)]
        if not possible:
            return modified.why_not(modified.values[1], target) or "nothing to modify"
        company[knob.modifies] = possible[0]
    for (
        name,
        modifier,
    ) in all_knobs().items():  # what the value itself brings along: its modifiers' first possible value
        if modifier.modifies == knob.name:
            possible = [v for v in modifier.values if not modifier.why_not(v, target)]
            if not possible:
                return modifier.why_not(modifier.default, target) or "no possible value"
            company[name] = possible[0]
    for dtype in ("fp32", "bf16"):
        config = complete({"dtype": dtype, **company, knob.name: value})
        objections = [all_knobs()[name].clash(config, target) for name in config]
        if not any(objections):
            return config
    return next(filter(None, objections))


@pytest.mark.parametrize(("knob", "value", "name"), list(techniques()))
def test_a_technique_acts_or_is_refused_with_a_sentence(knob: Knob, value: Value, name: str, root: Path) -> None:
    tiny = family(name, root)
    value = (
        "dbcache:0.9" if str(value).startswith("dbcache:") else value
    )  # random weights change more from step to step
    config = config_of(knob, value, tiny.target)
    if isinstance(config, str):
        assert len(config.split()) >= 3, config
        return
    in_the_middle = str(value).startswith("pab:")  # it acts between the timesteps 800 and 100 only
    steps = STEPS_IN_THE_MIDDLE if in_the_middle else STEPS_OF.get(knob.name, STEPS)
    pixels, effects = tiny.drawn(config, steps)
    assert np.isfinite(pixels).all()
    acting = knob.name if knob.apply or knob.verify else knob.modifies
    if acting in effects:
        assert effects[acting].count > 0
    if not knob.changes_output:
        assert difference(pixels, default_picture(name, root, config["dtype"], steps)) < CLOSE + 1 / 255


BY_INDUCTOR = ("FluxPipeline",)  # it takes a minute; a UNet's code is tested with the demo, see test_compile.py
COMPILED = {  # one of each kind of denoiser -> what is compiled
    "StableDiffusionPipeline": "regional",
    "StableDiffusionControlNetPipeline": "denoiser",
    "StableDiffusionXLPipeline": "everything",
    "IFPipeline": "denoiser",
    "FluxPipeline": "regional",
    "StableDiffusion3Pipeline": "denoiser+vae",
    "PixArtSigmaPipeline": "denoiser",
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_it_draws_the_eager_picture(name: str, root: Path, tmp_path: Path) -> None:
    """In whole graphs, none of them given up. Inductor compiles in a process of its own."""
    tiny = family(name, root)
    config = complete({"compile": COMPILED[name]})
    assert not find_knob("compile").why_not(COMPILED[name], tiny.target)
    eager = default_picture(name, root, "fp32")
    if name not in BY_INDUCTOR:
        with captured():
            check_compiled(compiled_picture(tiny, config, eager))
        return
    np.save(tmp_path / "eager.npy", eager)
    script = (
        f"import sys; sys.path[:0] = {SEARCHED}; from test_families import compile_here; compile_here(*sys.argv[1:])"
    )
    words = [name, tiny.target.pipeline.source, json.dumps(dict(config)), tmp_path]
    done = run_program("-c", script, *words, late={"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    check_compiled(json.loads(done.stdout.splitlines()[-1]))


def check_compiled(seen: dict[str, Any]) -> None:
    assert seen["difference"] < CLOSE + 1 / 255
    assert seen["graphs"] > 0
    assert seen["fallbacks"] == 0


def compile_here(name: str, folder: str, values: str, place: str) -> None:
    """What the child of the test does."""
    eager = np.load(Path(place) / "eager.npy")
    print(json.dumps(compiled_picture(Family(name, Path(folder)), complete(json.loads(values)), eager)))


def compiled_picture(tiny: Family, config: Config, eager: np.ndarray) -> dict[str, Any]:
    """How far its picture lies from the eager one, and what torch.compile did."""
    from autotune.measure.compilation import compilation

    pixels, effects = tiny.drawn(config)
    made = compilation()
    assert made is not None
    assert effects["compile"].count > 0
    return {"difference": difference(pixels, eager), **made.to_json()}
