"""draw(): draw pictures with an exported config or chain, as `autotune run` does.

torch and diffusers run in this process, as they do in production.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageOps

from autotune.devices import find_device
from autotune.errors import UserError, shown
from autotune.pictures.own import at_hand
from autotune.pictures.video import Picture, Video, mp4_fault
from autotune.pipelines.factory import Factory, function_of, rebuilt, refusal
from autotune.production.chain import ChainConfig, read_exported
from autotune.production.library_messages import kept_in_log
from autotune.production.tuned_config import TunedConfig
from autotune.study_folder import picture_name
from autotune.workload import Prompts, read_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from autotune.pipelines.chain import Chain

Call = Callable[[list[str], list[int]], list[Picture]]  # prompts, seeds -> pictures or clips
FORMATS = (".png", ".jpg", ".jpeg", ".webp")
CLIPS = (".webp", ".gif", ".png", ".mp4")
MOST_PICTURES = 100_000  # of a command: days of drawing, and a plan that fits in memory
OUTPUT = Path("out.png")  # of a single picture; of a clip it ends in .webp


class Plan(NamedTuple):
    """The pictures to draw: a prompt, a seed and a file for each. `folder` is created for them, unless it is None.

    named  did the user name the file?
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    outputs: tuple[Path, ...]
    folder: Path | None = None
    named: bool = True


def plan(
    prompt: str | None, file: Path | None, *, count: int, seed: int, output: Path | None, out: Path | None
) -> Plan:
    """Plan `count` pictures of the given prompt, or of each prompt in the file.

    Picture i has the seed `seed + i`, unless the file gives its prompt a seed: then `count` seeds from that one on.

    output  the file of a single picture, where `out` is None; None: the usual one
    out     the folder of the pictures

    Raises UserError where there is no prompt, or where there are several pictures and no folder.
    """
    if (prompt is None) == (file is None):
        raise UserError("say what to draw: give either --prompt or --prompts.")
    if prompt is not None and not prompt.strip():
        raise UserError("--prompt is empty: say what to draw.")
    given = read_prompts(file) if file is not None else Prompts(texts=(str(prompt),))
    if len(given.texts) * count > MOST_PICTURES:
        raise UserError(f"these are {shown(len(given.texts) * count)} pictures: draw at most {MOST_PICTURES} at once.")
    texts = tuple(text for text in given.texts for _ in range(count))
    own = given.seeds or (None,) * len(given.texts)
    seeds = tuple(
        seed + i * count + k if first is None else first + k for i, first in enumerate(own) for k in range(count)
    )
    if out is None and len(texts) > 1:
        raise UserError(f"these are {len(texts)} pictures: give --out and a folder for them.")
    if out is None:
        return Plan(texts, seeds, (output or OUTPUT,), named=output is not None)
    return Plan(texts, seeds, tuple(out / picture_name(i) for i in range(len(texts))), out, named=False)


def of_clips(pictures: Plan) -> Plan:
    """The plan for clips: files that the user has not named are animated WebPs."""
    if pictures.named:
        return pictures
    return pictures._replace(outputs=tuple(path.with_suffix(".webp") for path in pictures.outputs))


@kept_in_log()
def draw(
    config: Path,
    pictures: Plan,
    *,
    image: Sequence[Path] = (),
    mask: Path | None = None,
    device: str | None = None,
    factory: str | None = None,
    run_code: bool = False,
    listen: Callable[[Path], None] = lambda done: None,
) -> str:
    """Draw and save the pictures, in calls of the measured size. Returns a sentence that says how long this took.

    image, mask  files that the pipeline starts from, where it takes such input; None: pictures made by autotune
    factory      FILE.py:FUNCTION of the user that builds the pipe, which `run_code` allows to run
    listen       is called with each file that is written

    Raises UserError, where possible before torch is loaded.
    """
    exported = read_exported(config)
    first = exported if isinstance(exported, TunedConfig) else exported.stages[0]
    clips = first.workload.frames is not None
    if clips:
        pictures = of_clips(pictures)
    _check(pictures, CLIPS if clips else FORMATS)
    given = _given(first, image, mask)
    built_by = _factory(first, factory, run_code=run_code)
    if device is not None and (found := find_device(device)).uuid is not None:
        device = found.uuid  # torch may count the GPUs in another order than `--device` does
    _make(pictures.folder)
    _hide_progress_bars()
    started = time.perf_counter()
    pipe = exported.pipeline_on(device) if built_by is None else first.pipeline_on(device, factory=built_by)
    pipe.set_progress_bar_config(disable=True)
    load_s = time.perf_counter() - started
    fitted, remarks = _fitted(pipe if isinstance(exported, TunedConfig) else pipe.stages[0], first, given)

    consecutive = all(b - a == 1 for a, b in pairwise(pictures.seeds))  # a chain numbers the seeds of a call itself
    batch = first.workload.batch if isinstance(exported, TunedConfig) or consecutive else 1
    seconds = _draw(_caller(exported, pipe, fitted), pictures, batch, listen)
    return "; ".join([_times(load_s, seconds, batch, "clip" if clips else "picture"), *remarks])


def _factory(tuned: TunedConfig, word: str | None, *, run_code: bool) -> Factory | None:
    """The function that builds the pipe; None: diffusers loads it. Raises UserError where code would have to run."""
    pipeline = rebuilt(tuned.pipeline, word, run_code=run_code)
    if pipeline.factory is None:
        return None
    if word is None:
        raise refusal(pipeline)
    return function_of(Path(pipeline.source), pipeline.factory)


def _draw(call: Call, pictures: Plan, batch: int, listen: Callable[[Path], None]) -> list[float]:
    """Draw and save all pictures; returns the seconds of each call.

    The last call is padded to a whole batch, because a call of another size would compile again.
    """
    seconds = []
    for indices in _batches(len(pictures.prompts), batch):
        padded = [*indices, *[indices[-1]] * (batch - len(indices))]
        begun = time.perf_counter()
        images = call([pictures.prompts[i] for i in padded], [pictures.seeds[i] for i in padded])
        seconds.append(time.perf_counter() - begun)
        for i, image in zip(indices, images, strict=False):
            _save(image, pictures.outputs[i])
            listen(pictures.outputs[i])
    return seconds


def _caller(
    exported: TunedConfig | ChainConfig, pipe: "DiffusionPipeline | Chain", fitted: Mapping[str, Sequence[Image.Image]]
) -> Call:
    """The function that draws the pictures of one call: (prompts, seeds) -> pictures."""
    from autotune.measure import call_pipe

    if isinstance(exported, TunedConfig):
        workload = at_hand(exported.workload)
        return lambda prompts, seeds: call_pipe(pipe, workload, prompts, seeds, fitted)
    return lambda prompts, seeds: list(pipe(prompts, seed=seeds[0], given=fitted))


def _batches(count: int, batch: int) -> list[list[int]]:
    """The indices 0 to count - 1 in batches."""
    return [list(range(start, min(start + batch, count))) for start in range(0, count, batch)]


def _times(load_s: float, seconds: Sequence[float], batch: int, what: str) -> str:
    times = f"loaded in {load_s:.1f} s, drawn in {seconds[0]:.1f} s (a first call, compilation included)"
    if len(seconds) < 2:
        return times
    return f"{times}, then {statistics.median(seconds[1:]) / batch:.2f} s per {what}"


def _save(picture: Picture, output: Path) -> None:
    try:
        picture.write(output) if isinstance(picture, Video) else picture.save(output)
    except OSError as error:
        raise UserError(f"{str(output)!r} can't be written: {error.strerror or error}.") from None


def _check(pictures: Plan, formats: Sequence[str]) -> None:
    """Raises UserError for a seed out of range, and for a file that can't be a picture or can't be written."""
    for seed in pictures.seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    for output in pictures.outputs:
        if output.suffix.lower() not in formats:
            kind = "clip" if formats is CLIPS else "picture"
            raise UserError(f"{str(output)!r} is not a {kind} file: end its name in {', '.join(formats)}.")
        if output.suffix.lower() == ".mp4" and (missing := mp4_fault()):
            raise UserError(f"{str(output)!r} can't be written: {missing}; end its name in .webp or .gif.")
        if pictures.folder is None and not output.parent.is_dir():
            raise UserError(f"{str(output)!r} can't be written: there is no folder {str(output.parent)!r}.")
        if output.is_dir():
            raise UserError(f"{str(output)!r} can't be written: it is a folder.")


def _make(folder: Path | None) -> None:
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {str(folder)!r} can't be created: {error.strerror}.") from None


def _given(tuned: TunedConfig, image: Sequence[Path], mask: Path | None) -> dict[str, list[Image.Image]]:
    """The user's pictures, by the name of the argument that takes them (a ControlNet may name it control_image).

    Raises UserError for a picture that the pipeline does not take, and for another number of them.
    """
    start = next((name for name in ("image", "control_image", "ip_adapter_image") if name in tuned.inputs), None)
    if image and start is None:
        raise UserError(f"{tuned.pipeline_class} takes no picture to start from: leave out --image.")
    if mask is not None and "mask_image" not in tuned.inputs:
        raise UserError(f"{tuned.pipeline_class} takes no mask: leave out --mask.")
    traits = tuned.pipeline.traits
    number = traits.control_pictures if traits is not None and start and tuned.inputs[start] == "edges" else 1
    if image and len(image) != number:
        each = f"{number} pictures, one for each ControlNet in their order" if number > 1 else "one picture"
        times = f"{len(image)} times" if len(image) > 1 else "once"
        raise UserError(f"--image is given {times}: {tuned.pipeline_class} starts from {each}.")
    files = {start: list(image), "mask_image": [mask] if mask is not None else []}
    return {name: list(map(_read, each)) for name, each in files.items() if name is not None and each}


def _read(file: Path) -> Image.Image:
    """The picture in the file, rotated as its EXIF data says. Raises UserError where it can't be read."""
    try:
        with Image.open(file) as picture:
            return ImageOps.exif_transpose(picture.copy())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        what = getattr(error, "strerror", None) or f"it is not a picture, or is damaged ({type(error).__name__})"
        raise UserError(f"the picture {str(file)!r} can't be read: {what}.") from None


def _fitted(
    pipe: "DiffusionPipeline", tuned: TunedConfig, given: Mapping[str, Sequence[Image.Image]]
) -> tuple[dict[str, list[Image.Image]], list[str]]:
    """The user's pictures in the measured size, and remarks on every input that was changed or made by autotune."""
    from autotune.pipelines import inputs

    arguments, fitted, remarks = inputs.picture_arguments(pipe), {}, []
    for name, pictures in given.items():
        size = inputs.picture_size(pipe, arguments[name], tuned.workload)
        mode = "L" if arguments[name] == "mask" else "RGB"
        fitted[name] = [picture.convert(mode).resize(size) for picture in pictures]
        for width, height in dict.fromkeys(picture.size for picture in pictures if picture.size != size):
            remarks.append(f"{name} resized from {width}x{height} to {size[0]}x{size[1]}")
    own = [name for name in at_hand(tuned.workload).pictures if name not in given]
    if own:
        remarks.append(f"started from the search's own pictures ({', '.join(own)})")
    generated = [what for name, what in arguments.items() if name not in (*given, *own)]
    if generated:
        remarks.append(f"started from pictures made by autotune ({', '.join(generated)})")
    if inputs.reads_no_prompt(pipe):
        remarks.append("the prompt was replaced by random embeddings, because there is no text encoder")
    return fitted, remarks


def _hide_progress_bars() -> None:
    """Turn off the progress bars of the libraries, which would hide the output of this command."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for of_library in (of_diffusers, of_transformers):
        of_library.disable_progress_bar()
