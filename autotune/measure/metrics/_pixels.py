"""Pixels: pictures as tensors, for the metrics that compare them pixel by pixel."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from autotune.errors import UserError
from autotune.measure.metrics import Images

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def pairs(images: Images, references: Images) -> Iterator[tuple["Tensor", "Tensor", bool]]:
    """For each picture: (picture, reference, are the two the same bit for bit?).

    The tensors are 1 x 3 x height x width, from 0 to 1, in float64: flat areas lose digits in float32. Raises UserError
    where the sizes of picture and reference differ.
    """
    import torch

    for number, (image, reference) in enumerate(zip(images, references, strict=True)):
        if image.size != reference.size:
            sizes = [f"{picture.size[0]}x{picture.size[1]}" for picture in (reference, image)]
            raise UserError(
                f"the reference of picture {number} is {sizes[0]}, the picture {sizes[1]}: pixels can't be compared; "
                "give references of the workload's size, or take clip_image."
            )
        a, b = tensor(image), tensor(reference)
        yield a, b, torch.equal(a, b)


def tensor(image: "Image") -> "Tensor":
    """The picture as 1 x 3 x height x width, from 0 to 1, in float64."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].double() / 255


def library() -> str:
    """The package that computes the metric, with its version."""
    from importlib.metadata import version

    return f"torchmetrics {version('torchmetrics')}"
