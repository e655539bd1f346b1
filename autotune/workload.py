"""Workload: the calls that a pipeline is tuned for. Prompts, size, batch, steps, seeds.

Prompts come from a file, either text with one prompt a line, or JSON lines (.jsonl) with an optional seed and an
optional reference picture: {"prompt": "a cat", "seed": 7, "reference": "a.png"}. Reference pictures are identified by a
digest of their pixels.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from autotune.errors import UserError, cause, shown
from autotune.frozen_model import FrozenModel, absolute, read_text, read_toml

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PX = 2**26  # of a picture that is read: what unpacks to more is a bomb, or no picture of a pipeline
MOST_FRAMES = 4096  # of a clip: minutes of video
PROMPTS = Path(__file__).parent / "prompts"
ArgumentName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of a picture, see digest_of()
Finite = Annotated[float, Field(allow_inf_nan=False)]
Json = bool | int | Finite | str | None | list[bool | int | Finite | str | list[Finite]]  # a value of `--call`
MOST = {"width": 2**15, "height": 2**15, "batch": 2**12, "steps": 10**4}  # of any workload, measured or loaded


CALL_OPTIONS = {  # arguments of a pipe's call that have an option of their own
    "prompt": "--prompts",
    "width": "--size",
    "height": "--size",
    "max_area": "--size",
    "num_inference_steps": "--steps",
    "strength": "--strength",
    "negative_prompt": "--negative-prompt",
    "generator": "--seed",
    "num_images_per_prompt": "--batch",
    "num_videos_per_prompt": "--batch",
    "num_frames": "--frames",
    "frames": "--frames",
    "video_length": "--frames",
}


class Shape(FrozenModel):
    """The size of a call: `batch` pictures of `width` x `height` pixels."""

    width: int
    height: int
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{self.batch}"


class Workload(FrozenModel):
    """One call of the pipeline makes `batch` pictures of `width` x `height` pixels in `steps` denoising steps.

    A picture is a clip of `frames` frames where the pipeline makes videos.

    also        further sizes. Every config is timed at each size, in the same process. Quality is measured at the main
                size, which is the first.
    seed        prompt i is drawn with the seed `seed + i`, unless `seeds` are given
    seeds       the seed of each prompt, or empty
    guidance_scale   of the pipe's own argument for it; None: the call decides itself
    negative_prompt  of every picture; None: the call is made without one
    call             further arguments of the pipe's call, by name
    strength         how much of the starting picture is drawn anew, above 0 up to 1; None: the call decides itself
    frames           of each clip; None: the pipeline makes pictures
    pictures    the user's own pictures that a call starts from, by argument of the call: digests, of one picture for
                all prompts or of one for each. An argument that is not named gets pictures made by autotune
    references  the user's own pictures of the prompts, by digest ("": none), which `autotune score` compares with
    """

    prompts: tuple[str, ...]
    width: int
    height: int
    batch: int = 1
    steps: int
    guidance_scale: float | None
    seed: int = 0
    also: tuple[Shape, ...] = ()
    seeds: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    negative_prompt: str | None = None
    call: dict[ArgumentName, Json] = Field(default_factory=dict)
    strength: float | None = None
    frames: int | None = None
    pictures: dict[ArgumentName, Annotated[tuple[Digest, ...], Field(min_length=1)]] = Field(default_factory=dict)

    def seed_of(self, index: int) -> int:
        """The seed of the initial noise of the prompt with this index."""
        return self.seeds[index] if self.seeds else self.seed + index

    @property
    def normalized_prompts(self) -> tuple[str, ...]:
        """The prompts in lower case, with single spaces: CLIP's tokenizer does not tell two equal ones apart."""
        return tuple(" ".join(prompt.lower().split()) for prompt in self.prompts)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every size of the workload, the main one first."""
        return (Shape(width=self.width, height=self.height, batch=self.batch), *self.also)

    def at(self, shape: Shape) -> "Workload":
        """The same workload at this size alone."""
        return self.model_copy(update={**shape.model_dump(), "also": ()})

    def calls(self) -> Iterator[tuple[list[str], list[int]]]:
        """The prompts and the seeds of each call. The last call is filled up with the first prompts again."""
        for start in range(0, len(self.prompts), self.batch):
            which = [i % len(self.prompts) for i in range(start, start + self.batch)]
            yield [self.prompts[i] for i in which], [self.seed_of(i) for i in which]

    def __str__(self) -> str:
        return self.words()

    def words(self, run: int | None = None) -> str:
        """In words. `run`: how many of the steps run, where it is known (see Target.steps_run)."""
        sizes = " and ".join(map(str, self.shapes)) if self.also else f"{self.width}x{self.height}, batch {self.batch}"
        own = "seeds of their own" if self.seeds else f"seed {self.seed}"
        prompts = f"{len(self.prompts)} prompts, {own}"
        guidance = "the call's own guidance" if self.guidance_scale is None else f"guidance {self.guidance_scale:g}"
        negative = f", negative prompt {self.negative_prompt!r}" if (self.negative_prompt or "").strip() else ""
        more = "".join(f", {name}={json.dumps(value)}" for name, value in self.call.items())
        more += "".join(f", own {name} {' '.join(each[:8] for each in own)}" for name, own in self.pictures.items())
        frames = f"{self.frames} frames, " if self.frames is not None else ""
        some = f" of which {run} run" if run is not None and run != self.steps else ""
        at = f" at strength {self.strength:g}" if self.strength is not None else ""
        return f"{sizes}, {frames}{self.steps} steps{at}{some}, {guidance}{negative}{more}, {prompts}"


class Prompts(FrozenModel):
    """The prompts of a file. `seeds` and `references` are empty, or have one entry for each prompt.

    texts       the prompts
    seeds       None: the file gives no seed for this prompt
    references  digests of pictures; "": the file names no picture for this prompt
    pictures    digest -> the file that the picture was read from
    """

    texts: tuple[str, ...]
    seeds: tuple[int | None, ...] = ()
    references: tuple[str, ...] = ()
    pictures: dict[str, str] = Field(default_factory=dict)

    def first(self, count: int) -> "Prompts":
        """The first `count` prompts."""
        parts = {"texts": self.texts[:count], "seeds": self.seeds[:count], "references": self.references[:count]}
        return self.model_copy(update=parts)

    def seeds_from(self, seed: int) -> tuple[int, ...]:
        """The seed of each prompt: the file's, else `seed + i`. Empty if the file gives no seed at all."""
        if all(given is None for given in self.seeds):
            return ()
        return tuple(seed + i if given is None else given for i, given in enumerate(self.seeds))

    def save_pictures(self, folder: Path) -> None:
        """Write each reference picture as `folder/DIGEST.png`, unless that file exists. Raises UserError."""
        for digest in filter(None, self.references):
            path = folder / f"{digest}.png"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                source = self.pictures[digest]
                image = open_picture(Path(source), f"reference picture {source!r}")
                if digest_of(image) != digest:
                    raise UserError(f"the reference picture {source!r} was changed; start again.")
                image.save(path)


class PromptLine(FrozenModel):
    """One line of a .jsonl file."""

    prompt: str = Field(min_length=1, pattern=r"\S")
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    reference: str | None = Field(default=None, min_length=1)  # a picture, relative to the file


def read_prompts(path: Path) -> Prompts:
    """The prompts of a file. Empty lines and lines that start with # are skipped. Raises UserError."""
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"the prompts file {str(path)!r} can't be read: {cause(error)}.") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    kept = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not kept:
        raise UserError(f"the prompts file {str(path)!r} has no prompt: write one per line.")
    if path.suffix.lower() == ".jsonl":
        return _from_json_lines({f"{str(path)!r}, line {number}": line for number, line in kept}, path.parent)
    return Prompts(texts=tuple(line for _, line in kept))


def _read_line(line: str, where: str) -> PromptLine:
    """One JSON line. `where` names it in messages. Raises UserError."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:  # what is no JSON, is nested too deep, or has endless numbers
        raise UserError(f'{where} is not JSON ({error}): write {{"prompt": "..."}}, one per line.') from None
    if not isinstance(data, dict):
        raise UserError(f'{where} is not a JSON object: write {{"prompt": "..."}}, one per line.')
    return PromptLine.parse(data, where)


def _from_json_lines(text: Mapping[str, str], folder: Path) -> Prompts:
    """The prompts of JSON lines, given as place (for messages) -> line. Picture files are relative to `folder`."""
    lines = {where: _read_line(line, where) for where, line in text.items()}
    pictures: dict[str, str] = {}
    references = []
    for where, line in lines.items():
        digest = ""
        if line.reference is not None:
            source = folder / line.reference
            digest = digest_of(open_picture(source, f"reference picture {line.reference!r} of {where}"))
            pictures[digest] = str(absolute(source))
        references.append(digest)
    return Prompts(
        texts=tuple(line.prompt for line in lines.values()),
        seeds=tuple(line.seed for line in lines.values()),
        references=tuple(references) if pictures else (),
        pictures=pictures,
    )


def open_picture(path: Path, what: str) -> "Image":
    """The picture in RGB. Raises UserError, calling the picture `what`."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError("it is no file")  # a pipe or a device would never end
        with Image.open(path) as file:
            if file.width * file.height > MOST_PX:
                raise UserError(f"the {what} can't be read: it has {file.width}x{file.height} pixels.")
            return file.convert("RGB")
    except UnidentifiedImageError:
        raise UserError(f"the {what} is in no image format that Pillow reads.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"the {what} can't be read: {cause(error)}.") from None


def digest_of(image: "Image") -> str:
    """The SHA-256 of a picture's size and RGB pixels, as 64 hexadecimal digits."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height} RGB ".encode() + rgb.tobytes()).hexdigest()


def read_frames(frames: int | None) -> int | None:
    """Raises UserError for a clip of fewer frames than 2: one frame is a picture."""
    if frames is not None and not 2 <= frames <= MOST_FRAMES:
        raise UserError(f"--frames {frames}: a clip has 2 to {MOST_FRAMES} frames.")
    return frames


def read_size(text: str) -> tuple[int, int]:
    """`512x768` -> (512, 768), width first. Both must be multiples of 8, the side of the largest latent cell.

    Raises UserError.
    """
    size = _sides(text)
    if size is None:
        raise UserError(f"--size takes WIDTHxHEIGHT such as 512x512, not {text!r}.")
    if any(side < 8 or side % 8 for side in size):
        raise UserError(f"--size {text}: both sides must be multiples of 8, at least 8.")
    return size


def read_workload(text: str) -> tuple[int, int, int]:
    """`512x768@4` -> (512, 768, 4): width, height, pictures per call (1 if omitted). Raises UserError."""
    sides, at, batch = text.partition("@")
    size = _sides(sides)
    if size is None or (at and not batch.isdecimal()):
        raise UserError(f"--workload takes WIDTHxHEIGHT[@BATCH] such as 512x512@4, not {text!r}.")
    if any(side < 8 or side % 8 for side in size):
        raise UserError(f"--workload {text}: both sides must be multiples of 8, at least 8.")
    if at and int(batch) < 1:
        raise UserError(f"--workload {text}: give at least 1 picture per call.")
    return *size, int(batch or 1)


def _sides(text: str) -> tuple[int, int] | None:
    width, _, height = text.lower().partition("x")
    return (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None


@dataclass(frozen=True, kw_only=True)
class WorkloadRequest:
    """The workload that a user requested. The probe replaces None by the pipeline's default.

    size   (width, height) in pixels
    batch  pictures per call
    also   further sizes
    seed   of the initial noise, see Workload

    guidance, negative_prompt, call, strength, frames  see Workload; None or empty: the preset's or the pipeline's
    pictures  "image", "mask" or "control_image" -> digests of the user's pictures
    """

    prompts: Prompts
    steps: int | None = None
    size: tuple[int, int] | None = None
    batch: int = 1
    also: tuple[Shape, ...] = ()
    seed: int = 0
    guidance: float | None = None
    negative_prompt: str | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    strength: float | None = None
    frames: int | None = None
    pictures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_call(words: Sequence[str]) -> dict[str, Any]:
    """`["max_sequence_length=256", "call.toml"]` -> the arguments; later words win. Values are JSON, else text.

    Raises UserError for a word that is neither NAME=VALUE nor a TOML file, and for a value that is no plain data.
    """
    call: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if equals and name.isidentifier():
            call[name] = _json_or_text(text)
        elif word.endswith(".toml"):
            call |= _read_call_file(Path(word))
        else:
            raise UserError(f"--call takes NAME=VALUE such as max_sequence_length=256, or a FILE.toml, not {word!r}.")
    try:
        return TypeAdapter(dict[ArgumentName, Json]).validate_python(call)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"--call {fault['loc'][0]}: give a number, a text, true, false or a list of these.") from None


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_call_file(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        raise UserError(f"the file {str(path)!r} of --call can't be read: {cause(error)}.") from None


def request_workload(
    prompts: Prompts,
    *,
    steps: int | None,
    size: tuple[int, int] | None,
    batch: int | None,
    workloads: Sequence[tuple[int, int, int]] = (),
    seed: int = 0,
    guidance: float | None = None,
    negative_prompt: str | None = None,
    call: Mapping[str, Any] | None = None,
    strength: float | None = None,
    frames: int | None = None,
    pictures: Mapping[str, tuple[str, ...]] | None = None,
) -> WorkloadRequest:
    """The checked request. Raises UserError.

    workloads  (width, height, batch) of each size, the main one first; then `size` and `batch` must be None
    guidance, negative_prompt, call, strength, frames  see Workload
    pictures   see WorkloadRequest
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    if guidance is not None and not 0 <= guidance < float("inf"):
        raise UserError(f"--guidance {guidance}: give a number that is 0 or more.")
    if strength is not None and not 0 < strength <= 1:
        raise UserError(f"--strength {strength}: give a number above 0 and up to 1, where the whole picture is new.")
    how: dict[str, Any] = {
        "strength": strength,
        "guidance": guidance,
        "negative_prompt": negative_prompt,
        "call": dict(call or {}),
    }
    how |= {"prompts": prompts, "steps": steps, "seed": seed, "frames": read_frames(frames)}
    how["pictures"] = {option: own for option, own in (pictures or {}).items() if own}
    _check_most({"steps": steps, "batch": batch, **dict(zip(("width", "height"), size or (), strict=False))})
    for width, height, count in workloads:
        _check_most({"width": width, "height": height, "batch": count})
    if not workloads:
        return WorkloadRequest(size=size, batch=batch or 1, **how)
    if size is not None or batch is not None:
        raise UserError("--workload gives the size and the batch: omit --size and --batch.")
    shapes = [Shape(width=width, height=height, batch=pictures) for width, height, pictures in workloads]
    for number, shape in enumerate(shapes):
        if min(shape.width, shape.height, shape.batch) < 1:
            raise UserError(f"--workload {shape}: width, height and batch must be at least 1.")
        if shape in shapes[:number]:
            raise UserError(f"--workload {shape} is given twice: give every size once.")
    main, *others = shapes
    return WorkloadRequest(size=(main.width, main.height), batch=main.batch, also=tuple(others), **how)


def _check_most(numbers: Mapping[str, int | None]) -> None:
    """Raises UserError for a number (name in MOST -> number) that no workload may have."""
    for name, number in numbers.items():
        if number is not None and number > MOST[name]:
            raise UserError(f"the {name} {shown(number)} of a call is above {MOST[name]}: give less.")
