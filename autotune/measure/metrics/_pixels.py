"""Pictures as tensors, for the metrics that compare them pixel by pixel."""

from collections.abc import Iterator
from typing import Any

from autotune.errors import UserError
from autotune.measure.metrics import Images


def pairs(images: Images, references: Images) -> Iterator[tuple[Any, Any, bool]]:
    """Each picture and its reference as 1 x 3 x height x width from 0 to 1, and whether they are the same bit for bit.

    In float64, since flat areas lose digits in float32. Raises UserError where their sizes differ.
    """
    import torch

    for number, (mine, theirs) in enumerate(zip(images, references, strict=True)):
        if mine.size != theirs.size:
            sizes = [f"{image.size[0]}x{image.size[1]}" for image in (theirs, mine)]
            raise UserError(
                f"the reference of picture {number} is {sizes[0]}, the picture {sizes[1]}: pixels can't be compared; "
                "give references of the workload's size, or take clip_image."
            )
        a, b = tensor(mine), tensor(theirs)
        yield a, b, torch.equal(a, b)


def tensor(image: Any) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].double() / 255


def library() -> str:
    """The package whose formula it is, with its version."""
    from importlib.metadata import version

    return f"torchmetrics {version('torchmetrics')}"
