"""Workload: for whom we tune. The prompts, the size, the batch, the steps: what production will ask for."""

from collections.abc import Iterator
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
        size = f"{self.width}x{self.height}, batch {self.batch}, {self.steps} steps"
        return f"{size}, guidance {self.guidance_scale:g}, {len(self.prompts)} prompts, seed {self.seed}"


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
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UserError(f"--size takes WIDTHxHEIGHT such as 512x512, not {text!r}.")
    size = int(width), int(height)
    if any(side < 8 or side % 8 for side in size):
        raise UserError(f"--size {text}: both sides must be multiples of 8, at least 8.")
    return size
