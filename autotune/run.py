"""One picture with an exported config: `autotune run`. The libraries live in this process, as in production."""

import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from autotune.device import find_device
from autotune.errors import UserError
from autotune.tuned import TunedConfig

FORMATS = (".png", ".jpg", ".jpeg", ".webp")


def draw(
    config: Path,
    prompt: str,
    output: Path,
    *,
    image: Path | None = None,
    mask: Path | None = None,
    seed: int = 0,
    device: str | None = None,
) -> str:
    """Write the picture and say how long it took. Raises UserError before anything heavy is loaded where it can.

    image, mask  files with what the pipeline starts from, where it starts from pictures; otherwise our own are taken
    """
    tuned = TunedConfig.load(config)
    _check(output, seed)
    given = _given(tuned, image, mask)
    find_device(device or tuned.device.kind)
    _quieten()
    started = time.perf_counter()
    pipe = tuned.pipeline_on(device)
    pipe.set_progress_bar_config(disable=True)
    loaded = time.perf_counter()
    from autotune.measure import call_pipe

    fitted, remarks = _fitted(pipe, tuned, given)
    batch = tuned.workload.batch
    drawn = call_pipe(pipe, tuned.workload, [prompt] * batch, list(range(seed, seed + batch)), fitted)[0]
    done = time.perf_counter()
    try:
        drawn.save(output)
    except OSError as error:
        raise UserError(f"{str(output)!r} can't be written: {error.strerror or error}.") from None
    times = f"loaded in {loaded - started:.1f} s, drawn in {done - loaded:.1f} s (a first call, compilation included)"
    return "; ".join([times, *remarks])


def _check(output: Path, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    if output.suffix.lower() not in FORMATS:
        raise UserError(f"{str(output)!r} is no picture file: end its name in {', '.join(FORMATS)}.")
    if not output.parent.is_dir():
        raise UserError(f"{str(output)!r} can't be written: there is no folder {str(output.parent)!r}.")
    if output.is_dir():
        raise UserError(f"{str(output)!r} can't be written: it is a folder.")


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
    """The libraries' own remarks and progress bars would drown the one line that this command prints."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
