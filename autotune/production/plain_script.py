"""Exports other than JSON: a Python script that does not need autotune, and a section for a model card."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autotune.building.build import acting
from autotune.errors import UserError
from autotune.knob import Script
from autotune.knobs import all_knobs
from autotune.pictures.video import FRAME_MS
from autotune.pipeline import GGUF, Pipeline, split_hub_file
from autotune.pipelines.call import guidance_of, size_values, steps_of
from autotune.pipelines.checkpoint import is_single_file
from autotune.production.tuned_config import TunedConfig
from autotune.production.untrusted_input import check_class_name

WIDTH = 100  # characters of a line of prose in the script
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
    """{drawn}, one for each prompt. The noise comes from the CPU, so that a seed means the same everywhere."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return pipe(
        prompt=list(prompts),
        generator=generators,
{call}
        return_dict=False,
    )[0]


if __name__ == "__main__":
    for number, prompt in enumerate(sys.argv[1:] or [{prompt}]):
        drawn = draw([prompt] * {batch}, range(number, number + {batch}))[0]
        {save}
'''
# How a picture is saved, and a clip: a list of PIL pictures.
SAVE = 'drawn.save(f"{number:03d}.png")'
SAVE_CLIP = f"""\
how = {{"save_all": True, "append_images": drawn[1:], "duration": {FRAME_MS}, "loop": 0}}
        drawn[0].save(f"{{number:03d}}.webp", **how)"""


PICTURE = '''
def picture(path, mode):
    """The picture to start from, in the size that was measured."""
    return Image.open(path).convert(mode).resize(({width}, {height}))

'''


def write_text(tuned: TunedConfig, kind: str, path: Path) -> None:
    """Write the config as a file of this kind ("python" or "markdown").

    Raises UserError where the file can't be written, or where a script can't do what the config does.
    """
    makers: dict[str, Callable[[TunedConfig, str], str]] = {"python": script, "markdown": markdown}
    text = makers[kind](tuned, path.name)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be written: {error.strerror}.") from None


def parts_of(tuned: TunedConfig) -> dict[str, Script]:
    """Knob -> its part of the script, for each knob that acts.

    Raises UserError, which names everything in the config that a script can't do.
    """
    parts: dict[str, Script] = {}
    for name, _ in acting(tuned.config):
        knob = all_knobs()[name]
        if knob.script is not None:
            parts[name] = knob.script(tuned.config, tuned.target)
        elif knob.modifies is None:
            parts[name] = Script(why_not="the knob comes from another package, which has no script for it")
    reasons = [f"{name}={tuned.config[name]}: {part.why_not}" for name, part in parts.items() if part.why_not]
    if tuned.pipeline.weights == "random":
        reasons.append("autotune made the random weights")
    if "small" in tuned.inputs.values():
        reasons.append(f"{tuned.pipeline_class} starts from the pictures of another stage")
    if tuned.pipeline.textual_inversions and len(tuned.pipeline.known.text_encoders) > 1:
        reasons.append(f"autotune divides a textual inversion among the text encoders of {tuned.pipeline_class}")
    if tuned.inputs and _size_arguments(tuned) is None:
        reasons.append("the autotune that exported the config is too old: it did not record how to call the pipeline")
    if reasons:
        raise UserError(f"a plain script can't do what this config does ({'; '.join(reasons)}): use the JSON.")
    return parts


def script(tuned: TunedConfig, name: str) -> str:
    """The text of the script, for a file of this name. Raises UserError where no script can do what the config does."""
    from autotune import demo

    parts = parts_of(tuned)
    pipeline, workload = tuned.pipeline, tuned.workload
    source = str(demo.PIPELINE) if pipeline.source == "demo" else pipeline.source
    call = _call(tuned, parts)
    return SCRIPT.format(
        about=_plain(tuned.about),
        where_from=_plain(_where_from(tuned, call["num_inference_steps"])),
        name=_plain(name),
        imports=_imports(tuned, parts),
        source=repr(source),
        what=_what_source_is(pipeline, source),
        where=repr(tuned.device.torch_type),
        load=_load(tuned, parts),
        lines=_lines(tuned, parts),
        picture=PICTURE.format(width=workload.width, height=workload.height) if tuned.inputs else "",
        call="\n".join(f"        {key}={value}," for key, value in call.items()),
        prompt=repr(workload.prompts[0]),
        batch=workload.batch,
        drawn="PIL pictures" if workload.frames is None else "Clips as lists of PIL pictures",
        save=SAVE if workload.frames is None else SAVE_CLIP,
    )


def _what_source_is(pipeline: Pipeline, source: str) -> str:
    if pipeline.factory is not None:
        return "your own code, which builds the pipe"
    return ("a file" if is_single_file(source) else "a folder") if Path(source).is_absolute() else "on the hub"


def _where_from(tuned: TunedConfig, steps: str) -> str:
    """Where, when and with what the config was measured, and what the script needs."""
    files = [file for name in tuned.inputs for file in _picture_files(tuned, name)]
    pictures = f" It reads {' and '.join(files)} in the same folder." if files else ""
    frames = f"{tuned.workload.frames} frames, " if tuned.workload.frames is not None else ""
    return (
        f"Measured {tuned.created[:10]} on {tuned.device.name} with torch {tuned.versions.get('torch', '?')} and "
        f"diffusers {tuned.versions.get('diffusers', '?')}, at {' and '.join(map(str, tuned.workload.shapes))}, "
        f"{frames}{steps} steps. Found by `{tuned.command}`. This script needs torch, diffusers and the packages that "
        f"it imports, nothing else.{pictures}{_own_pictures(tuned)}"
    )


def _own_pictures(tuned: TunedConfig) -> str:
    """A sentence about the user's own pictures that were measured with; empty where autotune made them."""
    own = tuned.workload.pictures
    digests = ", ".join(f"{name} {' '.join(each[:12] for each in digests)}" for name, digests in own.items())
    return f" Measured with pictures of the user's own (SHA-256 of their pixels: {digests})." if own else ""


def _imports(tuned: TunedConfig, parts: dict[str, Script]) -> str:
    """The lines that import, `import ...` before `from ...`."""
    own = f"from diffusers import {tuned.pipeline_class}" if tuned.pipeline.factory is None else "import runpy"
    lines = {"import torch", own}
    if tuned.pipeline.scheduler:
        check_class_name(tuned.pipeline.scheduler)
        lines.add(f"from diffusers import {tuned.pipeline.scheduler}")
    if tuned.pipeline.controlnet:
        several = ", MultiControlNetModel" if len(tuned.pipeline.controlnets) > 1 else ""
        lines.add(f"from diffusers import ControlNetModel{several}")
    if tuned.inputs:
        lines.add("from PIL import Image")
    if tuned.pipeline.gguf is not None:
        check_class_name(tuned.pipeline.known.denoiser_class)
        lines.add(f"from diffusers import {tuned.pipeline.known.denoiser_class}, GGUFQuantizationConfig")
    lines |= {line for part in parts.values() for line in part.imports}
    return "\n".join(sorted(lines, key=lambda line: (line.startswith("from "), line)))


def _plain(text: str) -> str:
    """The text, wrapped for a docstring. It comes from a file: quotes and backslashes could end the docstring."""
    return textwrap.fill(text.replace("\\", "/").replace('"', "'"), WIDTH)


def _load(tuned: TunedConfig, parts: dict[str, Script]) -> str:
    """The lines that load the pipeline, its scheduler and its LoRA."""
    pipeline = tuned.pipeline
    single = is_single_file(pipeline.source)
    arguments = {} if single else {"use_safetensors": "True"}
    if pipeline.variant is not None:
        arguments["variant"] = repr(pipeline.variant)
    if pipeline.config is not None:
        arguments["config"] = repr(pipeline.config)
    if pipeline.revision is not None and not pipeline.revision.startswith("files-"):
        arguments["revision"] = repr(pipeline.revision)
    for part in parts.values():
        arguments |= part.load
    if pipeline.gguf is not None:
        revision = {name: value for name, value in arguments.items() if name == "revision"}
        arguments[pipeline.known.denoiser] = _gguf(pipeline, revision, arguments["dtype"])
    if pipeline.controlnet is not None:
        arguments["controlnet"] = _controlnets(pipeline, arguments["dtype"])
    if pipeline.factory is not None:
        return "\n".join([*_own_code(pipeline, arguments["dtype"]), *_more(pipeline)])
    if single:
        arguments["torch_dtype"] = arguments.pop("dtype")  # its name there
    inside = "".join(f"    {key}={value},\n" for key, value in arguments.items())
    how = "from_single_file" if single else "from_pretrained"
    return "\n".join([f"pipe = {tuned.pipeline_class}.{how}(\n    SOURCE,\n{inside})", *_more(pipeline)])


def _gguf(pipeline: Pipeline, revision: dict[str, str], dtype: str) -> str:
    """The expression that reads the denoiser from its GGUF file. `revision`: of the pipeline, an argument or none."""
    known, file = pipeline.known, str(pipeline.gguf)
    commit = pipeline.part_revisions.get("gguf", "files-")
    if (hub := split_hub_file(file, (GGUF,))) is not None:
        file = f"https://huggingface.co/{hub[0]}/blob/{'main' if commit.startswith('files-') else commit}/{hub[1]}"
    how = {"config": "SOURCE", "subfolder": repr(known.denoiser), "dtype": dtype} | revision
    arguments = ", ".join(f"{key}={value}" for key, value in how.items())
    packed = f"GGUFQuantizationConfig(compute_dtype={dtype})"
    return f"{known.denoiser_class}.from_single_file({file!r}, quantization_config={packed}, {arguments})"


def _own_code(pipeline: Pipeline, dtype: str) -> list[str]:
    """The lines that let the user's function build the pipe. It may import what lies beside its file."""
    folder = str(Path(pipeline.source).parent)
    return [f"sys.path.append({folder!r})", f"pipe = runpy.run_path(SOURCE)[{pipeline.factory!r}](dtype={dtype})"]


def _more(pipeline: Pipeline) -> list[str]:
    """The lines that put the scheduler and the LoRAs on the pipe."""
    lines = []
    if pipeline.scheduler:
        settings = "".join(f", {name}={value!r}" for name, value in pipeline.scheduler_settings.items())
        lines.append(f"pipe.scheduler = {pipeline.scheduler}.from_config(pipe.scheduler.config{settings})")
    for name, (where, _) in pipeline.loras.items():
        source, file = split_hub_file(where) or (where, None)
        which = f", weight_name={file!r}" if file is not None else ""
        lines.append(f"pipe.load_lora_weights({source!r}{which}, use_safetensors=True, adapter_name={name!r})")
    if pipeline.loras:
        names, weights = list(pipeline.loras), [weight for _, weight in pipeline.loras.values()]
        lines += [f"pipe.set_adapters({names!r}, {weights!r})", f"pipe.fuse_lora(adapter_names={names!r})"]
        lines.append("pipe.unload_lora_weights()")
    return [*lines, *_adapters(pipeline)]


def _adapters(pipeline: Pipeline) -> list[str]:
    """The lines that put textual inversions and the IP-Adapter on the pipe."""
    lines = []
    for source, token in pipeline.textual_inversions.items():
        where, which = _split_file(source)
        lines.append(f"pipe.load_textual_inversion({where!r}, token={token!r}, use_safetensors=True{which})")
    if pipeline.ip_adapter is not None:
        hub = split_hub_file(pipeline.ip_adapter)
        where, file = hub or (str(Path(pipeline.ip_adapter).parent), Path(pipeline.ip_adapter).name)
        folder, _, name = file.rpartition("/")
        lines += [
            f"pipe.load_ip_adapter({where!r}, subfolder={folder!r}, weight_name={name!r})",
            f"pipe.set_ip_adapter_scale({pipeline.ip_adapter_scale!r})",
        ]
    return lines


def _split_file(source: str) -> tuple[str, str]:
    """The hub id or folder, and the argument that names the file in it; a hub id alone has none."""
    hub, path = split_hub_file(source), Path(source)
    if hub is None and not path.is_absolute():
        return source, ""
    where, file = hub or (str(path.parent), path.name)
    return where, f", weight_name={file!r}"


def _controlnets(pipeline: Pipeline, dtype: str) -> str:
    """The expression that loads the ControlNets."""
    nets = []
    for name, (source, _) in pipeline.controlnets.items():
        revision = pipeline.part_revisions.get(name, "files-")
        pinned = "" if revision.startswith("files-") else f", revision={revision!r}"
        nets.append(f"ControlNetModel.from_pretrained({source!r}, dtype={dtype}, use_safetensors=True{pinned})")
    return nets[0] if len(nets) == 1 else f"MultiControlNetModel([{', '.join(nets)}])"


def _size_arguments(tuned: TunedConfig) -> tuple[str, ...] | None:
    return tuned.pipeline.traits.size_arguments if tuned.pipeline.traits else None


def _picture_files(tuned: TunedConfig, argument: str) -> list[str]:
    """The files in the folder of the script that this argument takes: image.png (image_2.png ...) or mask.png."""
    traits, name = tuned.pipeline.traits, argument.removesuffix("_image")
    number = traits.control_pictures if traits is not None and tuned.inputs[argument] == "edges" else 1
    return [f"{name}.png", *(f"{name}_{one}.png" for one in range(2, number + 1))]


def _lines(tuned: TunedConfig, parts: dict[str, Script]) -> str:
    """The lines of each knob under its name, in the order in which the knobs act; last, the move to the device."""
    blocks = []
    for name, part in parts.items():
        if part.lines:
            heading = " ".join(f"# {name}={tuned.config[name]}: {all_knobs()[name].summary}".split())
            blocks.append("\n".join([heading, *part.lines]))
    if not any(part.places for part in parts.values()):
        blocks.append("pipe.to(DEVICE)")
    return "\n" + "\n\n".join(blocks) + "\n"


def _call(tuned: TunedConfig, parts: dict[str, Script]) -> dict[str, str]:
    """The arguments of the call: name -> expression. Of the size arguments, those that the pipeline takes."""
    workload = tuned.workload
    names = _size_arguments(tuned)
    size = size_values(workload.width, workload.height)
    call = {name: repr(size[name]) for name in (("width", "height") if names is None else names)}
    if tuned.pipeline.traits and tuned.pipeline.traits.frames_argument and workload.frames is not None:
        call |= {tuned.pipeline.traits.frames_argument: repr(workload.frames), "output_type": repr("pil")}
    for name, what in tuned.inputs.items():
        mode = "L" if what == "mask" else "RGB"
        read = [f"picture({file!r}, {mode!r})" for file in _picture_files(tuned, name)]
        if what == "reference" or len(read) > 1:  # one for each ControlNet, for all prompts
            call[name] = f"[{', '.join(read)}]"
        else:  # some calls take no list
            call[name] = f"{read[0]} if len(prompts) == 1 else [{read[0]}] * len(prompts)"
    call |= {name: repr(value) for name, value in _from_workload(tuned).items()}
    if workload.negative_prompt is not None:
        call["negative_prompt"] = f"[{workload.negative_prompt!r}] * len(prompts)"
    for part in parts.values():
        call |= part.call
    return call


def _from_workload(tuned: TunedConfig) -> dict[str, Any]:
    """The arguments for steps and guidance, and those that the user gave by `--call`."""
    workload, traits = tuned.workload, tuned.pipeline.traits
    if traits is None:
        return {"num_inference_steps": workload.steps, "guidance_scale": workload.guidance_scale, **workload.call}
    values = steps_of(workload.steps, traits.call_arguments, traits.default_steps)
    values |= guidance_of(workload, traits.guidance_argument, traits.call_arguments)
    if workload.strength is not None:
        values["strength"] = workload.strength
    return values | workload.call


def _prose(text: str) -> str:
    """The text on one line, with what Markdown or HTML would read as markup escaped. It may come from a file."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", flat)


def _code(value: object) -> str:
    """The value as code in a table."""
    return "`" + " ".join(str(value).split()).replace("`", "'").replace("|", "\\|") + "`"


def markdown(tuned: TunedConfig, name: str) -> str:
    """A section for a model card: the speedup, the settings, where they were measured, and how to use them."""
    changed = {name: value for name, value in acting(tuned.config) if value != all_knobs()[name].default}
    rows = [f"| `{name}` | {_code(value)} | {_prose(all_knobs()[name].summary)} |" for name, value in changed.items()]
    table = ["| setting | value | what it is |", "|---|---|---|", *rows] if rows else ["All settings are the defaults."]
    libraries = ", ".join(
        f"{library} {tuned.versions[library]}" for library in ("torch", "diffusers") if library in tuned.versions
    )
    return "\n".join(
        [
            "## Inference settings",
            "",
            _prose(tuned.about),
            "",
            *table,
            "",
            _prose(f"Measured {tuned.created[:10]} on {tuned.device.name} ({libraries}), at {tuned.workload}."),
            "Other settings may be faster on another device. autotune found these, and loads them from a JSON file:",
            "",
            "```python",
            "import autotune",
            "",
            'pipe = autotune.load("best.json")',
            "```",
            "",
        ]
    )
