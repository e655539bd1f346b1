"""Workload: for whom we tune. The prompts, the size, the batch, the steps: what production will ask for.

Prompts come from a file: text, one a line, or JSON lines (.jsonl), {"prompt": ..., "seed": 7, "reference": "a.png"},
where seed and reference may be left away. Pictures are known by a digest of their pixels, whatever file they come in.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from autotune.errors import UserError
from autotune.frozen_model import FrozenModel

PROMPTS = Path(__file__).parent / "prompts"


class Shape(FrozenModel):
    """The size of a call: `batch` pictures of `width` x `height` pixels."""

    width: int
    height: int
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{self.batch}"


class Workload(FrozenModel):
    """One call of the pipeline makes `batch` pictures of `width` x `height` pixels in `steps` denoising steps.

    A service that is asked for several sizes names the others in `also`: every config is then timed at each of them, in
    the same process. Pictures are judged at the first size.

    Prompt i is drawn with seed `seed + i`, or with `seeds[i]` where there are seeds. `references` are the user's own
    pictures of the prompts, by digest ("" where there is none): `autotune score` compares with them.
    """

    prompts: tuple[str, ...]
    width: int
    height: int
    batch: int = 1
    steps: int
    guidance_scale: float
    seed: int = 0
    also: tuple[Shape, ...] = ()
    seeds: tuple[int, ...] = ()
    references: tuple[str, ...] = ()

    def seed_of(self, index: int) -> int:
        """The seed of the start noise of this prompt."""
        return self.seeds[index] if self.seeds else self.seed + index

    @property
    def as_read(self) -> tuple[str, ...]:
        """The prompts as a tokenizer that knows no capitals reads them: two that are alike may give one picture."""
        return tuple(" ".join(prompt.lower().split()) for prompt in self.prompts)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every size that is asked for, the first one first."""
        return (Shape(width=self.width, height=self.height, batch=self.batch), *self.also)

    def at(self, shape: Shape) -> "Workload":
        """The same for one size alone."""
        return self.model_copy(update={**shape.model_dump(), "also": ()})

    def calls(self) -> Iterator[tuple[list[str], list[int]]]:
        """The prompts and the seeds of each call. A prompt always has the same seed; the last call wraps around."""
        for start in range(0, len(self.prompts), self.batch):
            which = [i % len(self.prompts) for i in range(start, start + self.batch)]
            yield [self.prompts[i] for i in which], [self.seed_of(i) for i in which]

    def __str__(self) -> str:
        sizes = " and ".join(map(str, self.shapes)) if self.also else f"{self.width}x{self.height}, batch {self.batch}"
        own = "seeds of their own" if self.seeds else f"seed {self.seed}"
        prompts = f"{len(self.prompts)} prompts, {own}"
        return f"{sizes}, {self.steps} steps, guidance {self.guidance_scale:g}, {prompts}"


class Prompts(FrozenModel):
    """`seeds` and `references` are empty, or have an entry for each text: None or "" where nothing is said."""

    texts: tuple[str, ...]
    seeds: tuple[int | None, ...] = ()
    references: tuple[str, ...] = ()  # digests of pictures
    pictures: dict[str, str] = Field(default_factory=dict)  # digest -> the file that it was read from

    def first(self, count: int) -> "Prompts":
        parts = {"texts": self.texts[:count], "seeds": self.seeds[:count], "references": self.references[:count]}
        return self.model_copy(update=parts)

    def seeds_from(self, seed: int) -> tuple[int, ...]:
        """The seed of each prompt, `seed + i` where the file gives prompt i none; () where it gives no seed at all."""
        if all(given is None for given in self.seeds):
            return ()
        return tuple(seed + i if given is None else given for i, given in enumerate(self.seeds))

    def save_pictures(self, folder: Path) -> None:
        """Write each reference picture as `folder/DIGEST.png`, unless it is there. Raises UserError."""
        for digest in filter(None, self.references):
            path = folder / f"{digest}.png"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                image = _open_picture(Path(self.pictures[digest]), repr(self.pictures[digest]))
                if digest_of(image) != digest:
                    raise UserError(f"the reference picture {self.pictures[digest]!r} was changed; begin again.")
                image.save(path)


class PromptLine(FrozenModel):
    """One line of a .jsonl file."""

    prompt: str = Field(min_length=1, pattern=r"\S")
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    reference: str | None = Field(default=None, min_length=1)  # relative to the file


def read_prompts(path: Path) -> Prompts:
    """The prompts of a file; of text, empty lines and lines that start with # are skipped. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the prompts file {str(path)!r} can't be read: {error}.") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    kept = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not kept:
        raise UserError(f"the prompts file {str(path)!r} has no prompt: write one a line.")
    if path.suffix.lower() == ".jsonl":
        return _of_lines({f"{str(path)!r}, line {number}": line for number, line in kept}, path.parent)
    return Prompts(texts=tuple(line for _, line in kept))


def _read_line(line: str, where: str) -> PromptLine:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f'{where} is not JSON ({error}): write {{"prompt": "..."}}, one a line.') from None
    if not isinstance(data, dict):
        raise UserError(f'{where} is no object: write {{"prompt": "..."}}, one a line.')
    return PromptLine.parse(data, where)


def _of_lines(text: Mapping[str, str], folder: Path) -> Prompts:
    """The prompts of JSON lines, each by where it stands; pictures are relative to the folder."""
    lines = {where: _read_line(line, where) for where, line in text.items()}
    pictures: dict[str, str] = {}
    references = []
    for where, line in lines.items():
        digest = ""
        if line.reference is not None:
            source = folder / line.reference
            digest = digest_of(_open_picture(source, f"{line.reference!r} of {where}"))
            pictures[digest] = str(source.resolve())
        references.append(digest)
    return Prompts(
        texts=tuple(line.prompt for line in lines.values()),
        seeds=tuple(line.seed for line in lines.values()),
        references=tuple(references) if pictures else (),
        pictures=pictures,
    )


def _open_picture(path: Path, what: str) -> Any:
    """The picture. Raises UserError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except UnidentifiedImageError:
        raise UserError(f"the reference picture {what} is no picture that can be read.") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"the reference picture {what} can't be read: {error}.") from None


def digest_of(image: Any) -> str:
    """The SHA-256 of a picture's size and pixels, in 64 hexadecimal digits."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height} RGB ".encode() + rgb.tobytes()).hexdigest()


def read_size(text: str) -> tuple[int, int]:
    """`512x768` -> (512, 768), width first, both multiples of 8 (a latent cell is 8 pixels or fewer)."""
    size = _sides(text)
    if size is None:
        raise UserError(f"--size takes WIDTHxHEIGHT such as 512x512, not {text!r}.")
    if any(side < 8 or side % 8 for side in size):
        raise UserError(f"--size {text}: both sides must be multiples of 8, at least 8.")
    return size


def read_workload(text: str) -> tuple[int, int, int]:
    """`512x768@4` -> (512, 768, 4): width, height, pictures a call (1 where it is left away)."""
    sides, at, batch = text.partition("@")
    size = _sides(sides)
    if size is None or (at and not batch.isdecimal()):
        raise UserError(f"--workload takes WIDTHxHEIGHT[@BATCH] such as 512x512@4, not {text!r}.")
    if any(side < 8 or side % 8 for side in size):
        raise UserError(f"--workload {text}: both sides must be multiples of 8, at least 8.")
    if at and int(batch) < 1:
        raise UserError(f"--workload {text}: give at least 1 picture a call.")
    return *size, int(batch or 1)


def _sides(text: str) -> tuple[int, int] | None:
    width, _, height = text.lower().partition("x")
    return (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None


@dataclass(frozen=True, kw_only=True)
class WorkloadRequest:
    """What a user asks of the workload. The probe completes it from the pipeline: None is the pipeline's own.

    size  (width, height) in pixels;  batch  pictures a call;  also  further sizes;  seed  of the start noise
    """

    prompts: Prompts
    steps: int | None = None
    size: tuple[int, int] | None = None
    batch: int = 1
    also: tuple[Shape, ...] = ()
    seed: int = 0


def request_workload(
    prompts: Prompts,
    *,
    steps: int | None,
    size: tuple[int, int] | None,
    batch: int | None,
    workloads: Sequence[tuple[int, int, int]] = (),
    seed: int = 0,
) -> WorkloadRequest:
    """The request, checked. Raises UserError.

    workloads  (width, height, batch) of each size, the main one first; then neither `size` nor `batch` may be given
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    if not workloads:
        return WorkloadRequest(prompts=prompts, steps=steps, size=size, batch=batch or 1, seed=seed)
    if size is not None or batch is not None:
        raise UserError("--workload says the size and the batch: leave --size and --batch away.")
    shapes = [Shape(width=width, height=height, batch=pictures) for width, height, pictures in workloads]
    for number, shape in enumerate(shapes):
        if min(shape.width, shape.height, shape.batch) < 1:
            raise UserError(f"--workload {shape}: width, height and batch must be at least 1.")
        if shape in shapes[:number]:
            raise UserError(f"--workload {shape} is there twice: give every size once.")
    main, *others = shapes
    size = (main.width, main.height)
    return WorkloadRequest(prompts=prompts, steps=steps, size=size, batch=main.batch, also=tuple(others), seed=seed)
