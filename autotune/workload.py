"""Workload: for whom we tune. The prompts, the size, the batch, the steps: what production will ask for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from autotune.errors import UserError
from autotune.noun import Noun

PROMPTS = Path(__file__).parent / "prompts"


class Shape(Noun):
    """The size of a call: `batch` pictures of `width` x `height` pixels."""

    width: int
    height: int
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{self.batch}"


class Workload(Noun):
    """One call of the pipeline makes `batch` pictures of `width` x `height` pixels in `steps` denoising steps.

    A service that is asked for several sizes names the others in `also`: every config is then timed at each of them, in
    the same process. Pictures are judged at the first size.
    """

    prompts: tuple[str, ...]
    width: int
    height: int
    batch: int = 1
    steps: int
    guidance_scale: float
    seed: int = 0
    also: tuple[Shape, ...] = ()

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every size that is asked for, the first one first."""
        return (Shape(width=self.width, height=self.height, batch=self.batch), *self.also)

    def at(self, shape: Shape) -> "Workload":
        """The same for one size alone."""
        return self.model_copy(update={**shape.model_dump(), "also": ()})

    def calls(self) -> Iterator[tuple[list[str], list[int]]]:
        """The prompts and the seeds of each call. Prompt i always has seed `seed + i`; the last call wraps around."""
        for start in range(0, len(self.prompts), self.batch):
            which = [i % len(self.prompts) for i in range(start, start + self.batch)]
            yield [self.prompts[i] for i in which], [self.seed + i for i in which]

    def __str__(self) -> str:
        sizes = " and ".join(map(str, self.shapes)) if self.also else f"{self.width}x{self.height}, batch {self.batch}"
        prompts = f"{len(self.prompts)} prompts, seed {self.seed}"
        return f"{sizes}, {self.steps} steps, guidance {self.guidance_scale:g}, {prompts}"


def read_prompts(path: Path) -> tuple[str, ...]:
    """One prompt a line; empty lines and lines that start with # are skipped. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the prompts file {str(path)!r} can't be read: {error}.") from None
    lines = (line.strip() for line in text.splitlines())
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise UserError(f"the prompts file {str(path)!r} has no prompt: write one a line.")
    return prompts


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


def asked_sizes(
    size: tuple[int, int] | None, batch: int | None, workloads: Sequence[tuple[int, int, int]]
) -> tuple[tuple[int, int] | None, int, tuple[Shape, ...]]:
    """The main size (None: the pipeline's own), its batch, and the other sizes. Raises UserError.

    workloads  (width, height, batch) of each size, the main one first; then neither `size` nor `batch` may be given
    """
    if not workloads:
        return size, batch or 1, ()
    if size is not None or batch is not None:
        raise UserError("--workload says the size and the batch: leave --size and --batch away.")
    shapes = [Shape(width=width, height=height, batch=pictures) for width, height, pictures in workloads]
    for number, shape in enumerate(shapes):
        if min(shape.width, shape.height, shape.batch) < 1:
            raise UserError(f"--workload {shape}: width, height and batch must be at least 1.")
        if shape in shapes[:number]:
            raise UserError(f"--workload {shape} is there twice: give every size once.")
    return (shapes[0].width, shapes[0].height), shapes[0].batch, tuple(shapes[1:])
