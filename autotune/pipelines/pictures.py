"""Pictures: synthetic inputs for image-to-image, inpainting, ControlNet and upscaling. They are drawn here (CC0).

They show hills under a sun, different for every number. Their content has no influence on latency. They are no noise,
so that a CLIP model can score what a pipeline makes of them.
"""

import colorsys
import math
import random

from PIL import Image, ImageDraw, ImageFilter


def photo(number: int, width: int, height: int) -> Image.Image:
    """A landscape in RGB. A number gives the same picture at every size."""
    rng = random.Random(number)
    hue, sun, waves = rng.random(), (rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.4)), [rng.random() for _ in range(3)]
    image = Image.linear_gradient("L").resize((width, height))
    image = Image.merge("RGB", [image.point(lambda v, c=c: int(255 * c * (1 - v / 640))) for c in _rgb(hue, 0.35, 1.0)])
    draw = ImageDraw.Draw(image)
    radius = 0.09 * min(width, height)
    x, y = sun[0] * width, sun[1] * height
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_bytes(_rgb(hue + 0.5, 0.4, 1.0)))
    for layer, phase in enumerate(waves):
        top = [height * (0.5 + 0.15 * layer + 0.08 * math.sin(6.3 * (phase + i / 32 * (1 + layer)))) for i in range(33)]
        outline = [(width * i / 32, y) for i, y in enumerate(top)]
        draw.polygon([(0, height), *outline, (width, height)], fill=_bytes(_rgb(hue + 0.3, 0.6, 0.75 - 0.2 * layer)))
    return image


def mask(number: int, width: int, height: int) -> Image.Image:
    """The mask of inpainting, in gray levels: an ellipse of white (255), which is redrawn, on black (0)."""
    image = Image.new("L", (width, height), 0)
    ImageDraw.Draw(image).ellipse((width * 0.22, height * 0.22, width * 0.78, height * 0.78), fill=255)
    return image


def edges(number: int, width: int, height: int) -> Image.Image:
    """The input of an edge ControlNet, in RGB: the outlines of the photo of this number, white on black."""
    outlines = photo(number, width, height).convert("L").filter(ImageFilter.FIND_EDGES)
    return outlines.point(lambda v: 255 if v > 12 else 0).convert("RGB")


def _rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(hue % 1, saturation, value)


def _bytes(colour: tuple[float, float, float]) -> tuple[int, ...]:
    return tuple(int(255 * part) for part in colour)
