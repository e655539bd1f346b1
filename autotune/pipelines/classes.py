"""Classes: which class of diffusers or transformers a pipeline, a component or a scheduler is."""

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autotune.errors import UserError, nearest, shown
from autotune.frozen_model import read_json
from autotune.pipeline import Pipeline
from autotune.pipelines.adapters import controlnet

TASK_MAPPINGS = {"text2image": "TEXT2IMAGE", "image2image": "IMAGE2IMAGE", "inpainting": "INPAINT"}


def pipeline_class(pipeline: Pipeline, folder: Path) -> Any:
    """The diffusers class to build: the one that the folder names, or its counterpart for the requested task.

    Raises UserError where this diffusers has no such class.

    folder  holds the model_index.json
    """
    name = read_index(folder)["_class_name"]
    diffusers = import_module("diffusers")
    if not hasattr(diffusers, name):
        raise UserError(f"{name!r} is no pipeline of this diffusers ({diffusers.__version__}).")
    if pipeline.task is None and pipeline.controlnet is None:
        return getattr(diffusers, name)
    auto = import_module("diffusers.pipelines.auto_pipeline")
    own_task = "inpainting" if "Inpaint" in name else "image2image" if "Img2Img" in name else "text2image"
    task = pipeline.task or own_task
    plain = re.sub(r"(Img2Img|Inpaint|Inpainting)?Pipeline$", "Pipeline", name)
    wanted = plain.replace("Pipeline", "ControlNetPipeline") if pipeline.controlnet else name
    mapping = getattr(auto, f"AUTO_{TASK_MAPPINGS[task]}_PIPELINES_MAPPING")
    cls = auto._get_task_class(mapping, wanted, throw_error_if_not_exist=False)
    if cls is None and not pipeline.controlnet and _does(getattr(diffusers, name), task):
        return getattr(diffusers, name)  # in none of the lists (FluxFill, an inpainting pipeline)
    if cls is None:
        raise UserError(
            f"diffusers has no {task} pipeline{' with a ControlNet' if pipeline.controlnet else ''} for {name}."
        )
    if pipeline.controlnet:
        controlnet.check(cls, len(pipeline.controlnets))
    return cls


def _does(cls: Any, task: str) -> bool:
    """Does the call of this class take what the task starts from?"""
    taken = inspect.signature(cls.__call__).parameters
    needed = {"text2image": "prompt", "image2image": "image", "inpainting": "mask_image"}[task]
    return needed in taken and ("mask_image" in taken) == (task == "inpainting")


def names_class(spec: Any) -> bool:
    """Is this entry of a model_index.json a library and a class, or twice null?

    Others are settings, which may be lists, such as Krea 2's layers of its text encoder.
    """
    return isinstance(spec, list) and len(spec) == 2 and all(word is None or isinstance(word, str) for word in spec)


def read_index(folder: Path) -> dict[str, Any]:
    """The model_index.json in this folder: "_class_name", and component -> (library, class).

    Raises UserError where it can't be used, and where a class is code of the checkpoint itself, which is never run.
    """
    path = folder / "model_index.json"
    index = read_json(path, "index")
    if not isinstance(index, dict) or not index.get("_class_name"):
        raise UserError(f"the index {str(path)!r} can't be used: it names no class of a pipeline (_class_name).")
    name = index["_class_name"]
    lists = {part: spec for part, spec in index.items() if isinstance(spec, list) and None not in spec}
    parts = {part: spec for part, spec in lists.items() if any(isinstance(word, str) for word in spec)}
    for part, spec in {**parts, "_class_name": name if isinstance(name, list) else ["diffusers", name]}.items():
        if len(spec) != 2 or not all(isinstance(word, str) and word.isidentifier() for word in spec):
            raise UserError(
                f"the index {str(path)!r} can't be used: {part} is {shown(spec)}, not a library and a class."
            )
        if not _is_installed(spec[0]):
            what = "the pipeline" if part == "_class_name" else f"its {part}"
            raise UserError(
                f"the checkpoint {str(folder)!r} brings its own code ({spec[1]} of {spec[0]}.py for {what}), which is "
                "never run: build the pipe in a function of your own (--factory FILE.py:make --run-code), or use a "
                "version of it that is made of classes of diffusers and transformers."
            )
    return index


def _is_installed(library: str) -> bool:
    """Is this library one whose classes an index may name: diffusers, transformers, a pipeline's own module?"""
    return library in ("diffusers", "transformers") or find_spec(f"diffusers.pipelines.{library}") is not None


def component_class(library: str, name: str) -> Any:
    """The class that a model_index.json names: of diffusers, of transformers, or of a pipeline's own module."""
    module = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
    return getattr(import_module(module), name)


def scheduler_class(name: str) -> Any:
    """The diffusers scheduler class of this name. Raises UserError."""
    diffusers = import_module("diffusers")
    if not name.endswith("Scheduler") or not hasattr(diffusers, name):
        known = [n for n in dir(diffusers) if n.endswith("Scheduler")]
        raise UserError(f"diffusers has no scheduler {name!r}: {nearest(name, known)}")
    return getattr(diffusers, name)
