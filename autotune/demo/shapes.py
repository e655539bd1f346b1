"""Shapes: the training data of the demo: pictures of one coloured shape on a plain background, with captions.

A `Scene` is the five facts of a caption. `render` draws it with a random jitter in place and size, so that there are
more than 2,240 different pictures. Random numbers are always drawn in the same order, so a seed gives one dataset for
good. This module imports numpy and Pillow, but not torch.
"""

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Picture = npt.NDArray[np.uint8]
"""[height, width, 3], red green blue, 0 to 255."""

SIDE: Final = 64
"""Height and width of every picture, in pixels."""

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 70),
    "blue": (50, 80, 220),
    "yellow": (235, 210, 50),
    "purple": (150, 60, 190),
    "orange": (240, 140, 40),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
"""Name -> (red, green, blue), 0 to 255."""

SHAPES: Final = ("circle", "square", "triangle", "star")

SIZES: Final = {"small": 11.0, "large": 20.0}
"""Name -> radius, in pixels."""

PLACES: Final[dict[str, tuple[float, float]]] = {
    "left": (-14, 0),
    "right": (14, 0),
    "top": (0, -14),
    "bottom": (0, 14),
    "center": (0, 0),
}
"""Name -> offset (right, down) of a small shape's middle from the picture's middle, in pixels."""

LARGE_OFFSET: Final = 0.6
"""Large shapes are moved by this share of the offset, so that they stay inside the picture."""

JITTER: Final = 1.5
"""A shape's middle is shifted by up to this many pixels, right or left and up or down."""

SUPERSAMPLING: Final = 3
"""Pictures are drawn this many times larger and scaled down, for smooth edges."""

_CAPTION: Final = re.compile(
    "a ({}) ({}) ({}) at the ({}) on a ({}) background".format(
        *("|".join(names) for names in (SIZES, COLOURS, SHAPES, PLACES, COLOURS))
    )
)


@dataclass(frozen=True, slots=True)
class Scene:
    """The five facts of a caption: a shape, its size, colour and place, and the background's colour."""

    size: str
    colour: str
    shape: str
    place: str
    background: str

    @property
    def caption(self) -> str:
        """The scene in words, in the only grammar that the demo's text encoder knows."""
        thing = f"a {self.size} {self.colour} {self.shape}"
        return f"{thing} at the {self.place} on a {self.background} background"

    @property
    def middle(self) -> tuple[float, float]:
        """The shape's middle without jitter, in pixels from the left and from the top."""
        share = LARGE_OFFSET if self.size == "large" else 1.0
        right, down = PLACES[self.place]
        return SIDE / 2 + right * share, SIDE / 2 + down * share


def scene_of(caption: str) -> Scene:
    """The scene of a caption. Raises ValueError for a caption that the demo does not know."""
    match = _CAPTION.fullmatch(caption)
    if match is None:
        raise ValueError(
            f"not a demo caption: {caption!r}; write 'a {{{'|'.join(SIZES)}}} COLOUR {{{'|'.join(SHAPES)}}} "
            f"at the {{{'|'.join(PLACES)}}} on a COLOUR background', with two of {', '.join(COLOURS)}"
        )
    scene = Scene(*match.groups())
    if scene.colour == scene.background:
        raise ValueError(f"not a demo caption: {caption!r} names one colour twice, so the shape would be invisible")
    return scene


def all_scenes() -> Iterator[Scene]:
    """Each of the 2,240 scenes once, in a fixed order."""
    for facts in product(SIZES, COLOURS, SHAPES, PLACES, COLOURS):
        scene = Scene(*facts)
        if scene.colour != scene.background:
            yield scene


def random_scene(rng: random.Random) -> Scene:
    """A random scene. The order of the random draws must not change: seeds depend on it."""
    background = rng.choice(list(COLOURS))
    colour = rng.choice([name for name in COLOURS if name != background])
    shape, size, place = rng.choice(SHAPES), rng.choice(list(SIZES)), rng.choice(list(PLACES))
    return Scene(size=size, colour=colour, shape=shape, place=place, background=background)


def more_captions(first: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` different captions, beginning with `first`. Each new one shares at most three facts with the last."""
    rest = [scene for scene in all_scenes() if scene.caption not in first]
    random.Random(seed).shuffle(rest)
    captions, last = list(first), scene_of(first[-1])
    while len(captions) < count:
        last = next(scene for scene in rest if _facts_shared(scene, last) <= 3)
        rest.remove(last)
        captions.append(last.caption)
    return captions


def _facts_shared(one: Scene, other: Scene) -> int:
    return sum(getattr(one, fact.name) == getattr(other, fact.name) for fact in fields(Scene))


def render(scene: Scene, rng: random.Random) -> Picture:
    """The scene as a picture [SIDE, SIDE, 3], with the middle and the size of the shape jittered by `rng`."""
    canvas = Image.new("RGB", (SIDE * SUPERSAMPLING,) * 2, COLOURS[scene.background])
    right, down = scene.middle
    right = (right + rng.uniform(-JITTER, JITTER)) * SUPERSAMPLING
    down = (down + rng.uniform(-JITTER, JITTER)) * SUPERSAMPLING
    radius = SIZES[scene.size] * rng.uniform(0.92, 1.05) * SUPERSAMPLING
    _stamp(ImageDraw.Draw(canvas), scene.shape, right, down, radius, COLOURS[scene.colour])
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=np.uint8)


def _stamp(pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, fill: tuple[int, int, int]) -> None:
    """Draw one shape with its middle at (x, y) and a radius of about `r`, in pixels of the canvas."""
    if shape == "circle":
        pen.ellipse([x - r, y - r, x + r, y + r], fill=fill)
    elif shape == "square":
        pen.rectangle([x - r * 0.85, y - r * 0.85, x + r * 0.85, y + r * 0.85], fill=fill)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x + r * 0.95, y + r * 0.8), (x - r * 0.95, y + r * 0.8)], fill=fill)
    elif shape == "star":
        pen.polygon([_star_point(i, x, y, r) for i in range(10)], fill=fill)
    else:
        raise ValueError(f"unknown shape {shape!r}; the demo draws {', '.join(SHAPES)}")


def _star_point(i: int, x: float, y: float, r: float) -> tuple[float, float]:
    """Corner `i` of a five-pointed star, clockwise from the top. Even corners are the tips."""
    angle = -math.pi / 2 + i * math.pi / 5
    reach = r * (1.1 if i % 2 == 0 else 0.48)
    return x + reach * math.cos(angle), y + reach * math.sin(angle)


def draw(rng: random.Random) -> tuple[Picture, str]:
    """One random picture [SIDE, SIDE, 3] and its caption."""
    scene = random_scene(rng)
    return render(scene, rng), scene.caption


def dataset(count: int, seed: int) -> tuple[Picture, list[str]]:
    """`count` pictures [count, SIDE, SIDE, 3] and their captions. A seed gives one dataset."""
    rng = random.Random(seed)
    pairs = [draw(rng) for _ in range(count)]
    return np.stack([picture for picture, _ in pairs]), [caption for _, caption in pairs]
