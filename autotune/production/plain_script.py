"""A config as something else than JSON: a plain script that needs no autotune, or a paragraph for a model card."""

import textwrap
from collections.abc import Callable
from pathlib import Path

from autotune.building.build import acting
from autotune.errors import UserError
from autotune.knob import Script
from autotune.knobs import all_knobs
from autotune.pipeline import Pipeline
from autotune.production.tuned_config import TunedConfig

WIDTH = 100  # of the script's own words
SUFFIXES = {"json": ".json", "python": ".py", "markdown": ".md"}

SCRIPT = '''\
"""{about}

{where_from}

    python {name} "a prompt" ["another prompt" ...]
"""

import sys

{imports}

SOURCE = {source}  # {what}
DEVICE = {where}

{load}
{lines}
{picture}
def draw(prompts, seeds):
    """PIL pictures, one for each prompt. The noise comes from the CPU, so that a seed means the same everywhere."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return pipe(
        prompts,
        generator=generators,
{call}
    ).images


if __name__ == "__main__":
    for number, prompt in enumerate(sys.argv[1:] or [{prompt}]):
        draw([prompt] * {batch}, range(number, number + {batch}))[0].save(f"{{number:03d}}.png")
'''


PICTURE = '''
def picture(path, mode):
    """What the pictures start from, in the size that was measured."""
    return Image.open(path).convert(mode).resize(({width}, {height}))

'''


def write_text(tuned: TunedConfig, kind: str, path: Path) -> None:
    """Write it. Raises UserError where it can't be written, or where a script can't do what the config does."""
    makers: dict[str, Callable[[TunedConfig, str], str]] = {"python": script, "markdown": markdown}
    text = makers[kind](tuned, path.name)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be written: {error.strerror}.") from None


def parts_of(tuned: TunedConfig) -> dict[str, Script]:
    """What each knob that acts writes into the script. Raises UserError naming all that can't be written."""
    found: dict[str, Script] = {}
    for name, _ in acting(tuned.config):
        knob = all_knobs()[name]
        if knob.script is not None:
            found[name] = knob.script(tuned.config, tuned.target)
        elif knob.modifies is None:
            found[name] = Script(why_not="it comes from another package that has no script for it")
    lost = [f"{name}={tuned.config[name]}: {part.why_not}" for name, part in found.items() if part.why_not]
    if tuned.pipeline.weights == "random":
        lost.append("the weights are random ones, made by autotune")
    if "small" in tuned.inputs.values():
        lost.append(f"{tuned.pipeline_class} starts from the pictures of another stage")
    if tuned.inputs and _size_arguments(tuned) is None:
        lost.append("an older autotune exported it, which did not note how to call it")
    if lost:
        raise UserError(f"a plain script can't do what this config does ({'; '.join(lost)}): use the JSON.")
    return found


def script(tuned: TunedConfig, name: str) -> str:
    """The script's text, for a file of this name. Raises UserError."""
    from autotune import demo

    parts = parts_of(tuned)
    pipeline, workload = tuned.pipeline, tuned.workload
    first = [f"from diffusers import {tuned.pipeline_class}"]
    if pipeline.scheduler:
        first.append(f"from diffusers import {pipeline.scheduler}")
    if pipeline.controlnet:
        first.append("from diffusers import ControlNetModel")
    if tuned.inputs:
        first.append("from PIL import Image")
    needs = f" Beside it must lie {' and '.join(map(_picture_file, tuned.inputs))}." if tuned.inputs else ""
    imports = sorted({"import torch", *first, *(line for part in parts.values() for line in part.imports)})
    imports.sort(key=lambda line: line.startswith("from "))
    source = str(demo.PIPELINE) if pipeline.source == "demo" else pipeline.source
    call = _call(tuned, parts)
    return SCRIPT.format(
        about=_plain(tuned.about),
        where_from=_plain(
            f"Measured {tuned.created[:10]} on {tuned.device.name} with torch {tuned.versions.get('torch', '?')} and "
            f"diffusers {tuned.versions.get('diffusers', '?')}, at {' and '.join(map(str, workload.shapes))}, "
            f"{call['num_inference_steps']} steps. Found by `{tuned.command}`. This script needs torch, diffusers and "
            f"what it imports, nothing else.{needs}"
        ),
        name=name,
        imports="\n".join(imports),
        source=repr(source),
        what="a folder" if Path(source).is_absolute() else "on the hub",
        where=repr(tuned.device.kind),
        load=_load(tuned, parts),
        lines=_lines(tuned, parts),
        picture=PICTURE.format(width=workload.width, height=workload.height) if tuned.inputs else "",
        call="\n".join(f"        {key}={value}," for key, value in call.items()),
        prompt=repr(workload.prompts[0]),
        batch=workload.batch,
    )


def _plain(text: str) -> str:
    """Fit to stand in a docstring: it comes from a file, and must not end it."""
    return textwrap.fill(text.replace("\\", "/").replace('"', "'"), WIDTH)


def _load(tuned: TunedConfig, parts: dict[str, Script]) -> str:
    pipeline = tuned.pipeline
    arguments = {"use_safetensors": "True"}
    if pipeline.revision is not None and not pipeline.revision.startswith("files-"):
        arguments["revision"] = repr(pipeline.revision)
    for part in parts.values():
        arguments |= part.load
    if pipeline.controlnet is not None:
        arguments["controlnet"] = _controlnet(pipeline, arguments["dtype"])
    inside = "".join(f"    {key}={value},\n" for key, value in arguments.items())
    lines = [f"pipe = {tuned.pipeline_class}.from_pretrained(\n    SOURCE,\n{inside})"]
    if pipeline.scheduler:
        lines.append(f"pipe.scheduler = {pipeline.scheduler}.from_config(pipe.scheduler.config)")
    if pipeline.lora is not None:
        lines += [f"pipe.load_lora_weights({pipeline.lora!r}, use_safetensors=True)", "pipe.fuse_lora()"]
        lines.append("pipe.unload_lora_weights()")
    return "\n".join(lines)


def _controlnet(pipeline: Pipeline, dtype: str) -> str:
    revision = pipeline.part_revisions.get("controlnet", "files-")
    pinned = "" if revision.startswith("files-") else f", revision={revision!r}"
    return f"ControlNetModel.from_pretrained({pipeline.controlnet!r}, dtype={dtype}, use_safetensors=True{pinned})"


def _size_arguments(tuned: TunedConfig) -> tuple[str, ...] | None:
    return tuned.pipeline.traits.size_arguments if tuned.pipeline.traits else None


def _picture_file(argument: str) -> str:
    """What the user has to put beside the script: image.png, mask.png."""
    return f"{argument.removesuffix('_image')}.png"


def _lines(tuned: TunedConfig, parts: dict[str, Script]) -> str:
    """Each knob's lines under its name, in the order in which the knobs act; then the weights go to the device."""
    blocks = []
    for name, part in parts.items():
        if part.lines:
            blocks.append("\n".join([f"# {name}={tuned.config[name]}: {all_knobs()[name].summary}", *part.lines]))
    if not any(part.places for part in parts.values()):
        blocks.append("pipe.to(DEVICE)")
    return "\n" + "\n\n".join(blocks) + "\n"


def _call(tuned: TunedConfig, parts: dict[str, Script]) -> dict[str, str]:
    """The arguments of the call. Those that a pipeline's call may lack are not written for it."""
    workload = tuned.workload
    taken = _size_arguments(tuned)
    size = {"width": str(workload.width), "height": str(workload.height), "use_resolution_binning": "False"}
    call = {name: size[name] for name in (("width", "height") if taken is None else taken)}
    for name, what in tuned.inputs.items():
        mode = "L" if what == "mask" else "RGB"
        call[name] = f"[picture({_picture_file(name)!r}, {mode!r})] * len(prompts)"
    call |= {"num_inference_steps": str(workload.steps), "guidance_scale": str(workload.guidance_scale)}
    for part in parts.values():
        call |= part.call
    return call


def markdown(tuned: TunedConfig, name: str) -> str:
    """A paragraph for a model card: what it brings, where that was measured, and how to use it."""
    changed = {name: value for name, value in acting(tuned.config) if value != all_knobs()[name].default}
    rows = [f"| `{name}` | `{value}` | {all_knobs()[name].summary} |" for name, value in changed.items()]
    table = ["| setting | value | what it is |", "|---|---|---|", *rows] if rows else ["All settings are the defaults."]
    libraries = ", ".join(
        f"{library} {tuned.versions[library]}" for library in ("torch", "diffusers") if library in tuned.versions
    )
    return "\n".join(
        [
            "## Inference settings",
            "",
            tuned.about,
            "",
            *table,
            "",
            f"Measured {tuned.created[:10]} on {tuned.device.name} ({libraries}), at {tuned.workload}.",
            "On another device other settings win. Found by autotune, which loads them from the JSON beside this text:",
            "",
            "```python",
            "import autotune",
            "",
            'pipe = autotune.load("best.json")',
            "```",
            "",
        ]
    )
