"""presets: the page of the pipelines that have a name, made from the files of their families."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from autotune.pipeline import Preset
from autotune.pipelines import families, presets
from tools.docs.outcomes import table
from tools.docs.sources import docstring

HEAD = """# Presets

`--pipeline NAME` takes one of these names. A preset is a source of weights and the workload of its model card,
written from memory, which options such as `--size` and `--steps` replace. Anything else works without a preset: see
[Bring my own pipeline](../guides/pipeline.md) and [Pipelines](../pipelines.md).

`--weights random` builds those with a tick at their full published size without a download: latency and memory are
real, quality is likeness to the baseline's own output. Of presets newer than SDXL, the tests count the parameters and
nothing else: none was run at full size. Pictures that a pipeline starts from are drawn by autotune (CC0) and only stand
in for yours.
"""


def page() -> str:
    """A section a family, a row a preset."""
    parts = [HEAD.rstrip()]
    for module in iter_modules(families.__path__, f"{families.__name__}."):
        family = import_module(module.name)
        assert family.__file__
        about, more = docstring(Path(family.__file__))
        title, _, what = about.partition(": ")
        rows = [_row(preset) for preset in family.PRESETS]
        parts += [f"## {title}", " ".join([what[:1].upper() + what[1:], *more.split()]), table(COLUMNS, rows)]
    return "\n\n".join(parts)


COLUMNS = ("preset", "weights", "task", "with", "size", "steps", "guidance", "random")


def _row(preset: Preset) -> tuple[str, ...]:
    assert preset in presets().values()
    scheduler = " ".join([preset.scheduler or "", *(f"{n}={v}" for n, v in preset.scheduler_settings.items())])
    beside = [part for part in (preset.controlnet, preset.lora, scheduler) if part]
    size = f"{preset.width}x{preset.height}" + (f", {preset.frames} frames" if preset.frames else "")
    return (
        f"`{preset.name}`",
        preset.source,
        preset.task or "",
        ", ".join(beside),
        size,
        str(preset.steps),
        f"{preset.guidance_scale:g}",
        "✓" if preset.architecture else "",
    )
