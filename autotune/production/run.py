"""Pictures with an exported config, of a pipeline or a chain: `autotune run`. The libraries live in this process,
as in production."""

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from autotune.devices import find_device
from autotune.errors import UserError
from autotune.production.chain import ChainConfig, read_exported
from autotune.production.tuned_config import TunedConfig
from autotune.study_folder import picture_name
from autotune.workload import Prompts, read_prompts

Call = Callable[[list[str], list[int]], list[Image.Image]]  # prompts, seeds -> pictures
FORMATS = (".png", ".jpg", ".jpeg", ".webp")


class Plan(NamedTuple):
    """Which pictures are drawn: a prompt, a seed and a file for each. `folder` is made for them, unless it is None."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    outputs: tuple[Path, ...]
    folder: Path | None = None


def plan(prompt: str | None, file: Path | None, *, count: int, seed: int, output: Path, out: Path | None) -> Plan:
    """`count` pictures of each prompt, of the user's one or of a file of them. Raises UserError.

    Picture i has the seed `seed + i`, unless the file gives its prompt one.

    output  the only picture, where there is no folder `out`
    """
    if (prompt is None) == (file is None):
        raise UserError("say what to draw: give either --prompt or --prompts.")
    if prompt is not None and not prompt.strip():
        raise UserError("--prompt is empty: say what to draw.")
    given = read_prompts(file) if file is not None else Prompts(texts=(str(prompt),))
    texts = tuple(text for text in given.texts for _ in range(count))
    own = given.seeds or (None,) * len(given.texts)
    seeds = tuple(
        seed + i * count + k if first is None else first + k for i, first in enumerate(own) for k in range(count)
    )
    if out is None and len(texts) > 1:
        raise UserError(f"these are {len(texts)} pictures: give --out and a folder for them.")
    if out is None:
        return Plan(texts, seeds, (output,))
    return Plan(texts, seeds, tuple(out / picture_name(i) for i in range(len(texts))), out)


def draw(
    config: Path,
    asked: Plan,
    *,
    image: Path | None = None,
    mask: Path | None = None,
    device: str | None = None,
    listen: Callable[[Path], None] = lambda done: None,
) -> str:
    """Write the pictures that are asked for, in calls of the size that was measured, and say how long they took.

    image, mask  files with what the pipeline starts from, where it starts from pictures; otherwise our own are taken
    listen       hears of each picture that is written

    Raises UserError before anything heavy is loaded where it can.
    """
    exported = read_exported(config)
    _check(asked)
    first = exported if isinstance(exported, TunedConfig) else exported.stages[0]
    given = _given(first, image, mask)
    if device is not None:
        find_device(device)
    _make(asked.folder)
    _quieten()
    started = time.perf_counter()
    pipe = exported.pipeline_on(device)
    pipe.set_progress_bar_config(disable=True)
    load_s = time.perf_counter() - started
    fitted, remarks = _fitted(pipe if isinstance(exported, TunedConfig) else pipe.stages[0], first, given)

    in_a_row = all(b - a == 1 for a, b in pairwise(asked.seeds))  # a chain counts its seeds up by itself
    batch = first.workload.batch if isinstance(exported, TunedConfig) or in_a_row else 1
    seconds = _draw(_caller(exported, pipe, fitted), asked, batch, listen)
    return "; ".join([_times(load_s, seconds, batch), *remarks])


def _draw(call: Call, asked: Plan, batch: int, listen: Callable[[Path], None]) -> list[float]:
    """The seconds of each call. The last one is filled up: one of another size would be compiled again."""
    seconds = []
    for part in _parts(len(asked.prompts), batch):
        padded = [*part, *[part[-1]] * (batch - len(part))]
        begun = time.perf_counter()
        drawn = call([asked.prompts[i] for i in padded], [asked.seeds[i] for i in padded])
        seconds.append(time.perf_counter() - begun)
        for i, picture in zip(part, drawn, strict=False):
            _save(picture, asked.outputs[i])
            listen(asked.outputs[i])
    return seconds


def _caller(exported: TunedConfig | ChainConfig, pipe: Any, fitted: Mapping[str, Image.Image]) -> Call:
    """What makes the pictures of one call: prompts and seeds in, pictures out."""
    from autotune.measure import call_pipe

    if isinstance(exported, TunedConfig):
        return lambda prompts, seeds: call_pipe(pipe, exported.workload, prompts, seeds, fitted)
    return lambda prompts, seeds: list(pipe(prompts, seed=seeds[0], given=fitted))


def _parts(count: int, batch: int) -> list[list[int]]:
    """0, 1, 2 ... in parts as large as a call."""
    return [list(range(start, min(start + batch, count))) for start in range(0, count, batch)]


def _times(load_s: float, seconds: Sequence[float], batch: int) -> str:
    times = f"loaded in {load_s:.1f} s, drawn in {seconds[0]:.1f} s (a first call, compilation included)"
    if len(seconds) < 2:
        return times
    return f"{times}, then {statistics.median(seconds[1:]) / batch:.2f} s a picture"


def _save(picture: Image.Image, output: Path) -> None:
    try:
        picture.save(output)
    except OSError as error:
        raise UserError(f"{str(output)!r} can't be written: {error.strerror or error}.") from None


def _check(asked: Plan) -> None:
    for seed in asked.seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    for output in asked.outputs:
        if output.suffix.lower() not in FORMATS:
            raise UserError(f"{str(output)!r} is no picture file: end its name in {', '.join(FORMATS)}.")
        if asked.folder is None and not output.parent.is_dir():
            raise UserError(f"{str(output)!r} can't be written: there is no folder {str(output.parent)!r}.")
        if output.is_dir():
            raise UserError(f"{str(output)!r} can't be written: it is a folder.")


def _make(folder: Path | None) -> None:
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {str(folder)!r} can't be made: {error.strerror}.") from None


def _given(tuned: TunedConfig, image: Path | None, mask: Path | None) -> dict[str, Image.Image]:
    """The user's pictures, by the name of the argument that takes them. A ControlNet may call the picture otherwise."""
    start = next((name for name in ("image", "control_image") if name in tuned.inputs), None)
    if image is not None and start is None:
        raise UserError(f"{tuned.pipeline_class} starts from no picture: leave --image away.")
    if mask is not None and "mask_image" not in tuned.inputs:
        raise UserError(f"{tuned.pipeline_class} takes no mask: leave --mask away.")
    files = {start: image, "mask_image": mask}
    return {name: _read(file) for name, file in files.items() if name is not None and file is not None}


def _read(file: Path) -> Image.Image:
    """The picture as a camera's owner sees it: turned as its file says."""
    try:
        with Image.open(file) as picture:
            return ImageOps.exif_transpose(picture.copy())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        what = getattr(error, "strerror", None) or f"it is no picture, or a damaged one ({type(error).__name__})"
        raise UserError(f"the picture {str(file)!r} can't be read: {what}.") from None


def _fitted(
    pipe: Any, tuned: TunedConfig, given: Mapping[str, Image.Image]
) -> tuple[dict[str, Image.Image], list[str]]:
    """The user's pictures in the size that was measured, and remarks on what the pipe was fed instead of the user's."""
    from autotune.pipelines import inputs

    wanted, fitted, remarks = inputs.picture_arguments(pipe), {}, []
    for name, picture in given.items():
        size = inputs.picture_size(pipe, wanted[name], tuned.workload)
        fitted[name] = picture.convert("L" if wanted[name] == "mask" else "RGB").resize(size)
        if picture.size != size:
            (width, height), (wide, high) = picture.size, size
            remarks.append(f"{name} resized from {width}x{height} to {wide}x{high}")
    ours = [what for name, what in wanted.items() if name not in given]
    if ours:
        remarks.append(f"started from pictures made by autotune ({', '.join(ours)})")
    if inputs.reads_no_prompt(pipe):
        remarks.append("the prompt was replaced by random embeddings, because there is no text encoder")
    return fitted, remarks


def _quieten() -> None:
    """The libraries' own remarks and progress bars would drown the few lines that this command prints."""
    for library in ("accelerate", "diffusers", "huggingface_hub", "torch", "torchao", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for of_library in (of_diffusers, of_transformers):
        of_library.disable_progress_bar()
        of_library.set_verbosity_error()
