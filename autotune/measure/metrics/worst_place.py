"""Worst place: how far the worst cell, row or column of a picture lies from its reference, in levels of 0 to 255.

A dark band between two tiles of a VAE is 4 % of a picture and moves its mean SSIM little; here it is the whole figure.
A cell has 16 x 16 pixels; a row and a column go across the picture. Each figure is the mean absolute difference of the
pixels of the place, over the three colours.
"""

from typing import NamedTuple

from autotune.measure.metrics import Images, Judge, Metric, largest
from autotune.measure.metrics._pixels import pairs

CELL_PX = 16


class Places(NamedTuple):
    """The largest mean difference of a cell, of a row and of a column, in levels of 0 to 255; 0: the same picture."""

    cell: float
    row: float
    column: float


def worst_places(images: Images, references: Images) -> list[Places]:
    """The worst places of each picture. Raises UserError where the sizes of picture and reference differ."""
    from torch.nn.functional import avg_pool2d

    found = []
    for picture, reference, _ in pairs(images, references):
        levels = 255 * (picture - reference).abs().mean(dim=1)  # 1 x height x width
        # Cells at the right and at the bottom may be smaller: ceil_mode takes the mean of the pixels that there are.
        cells = avg_pool2d(levels, CELL_PX, ceil_mode=True)
        found.append(Places(*(float(means.max()) for means in (cells, levels.mean(dim=2), levels.mean(dim=1)))))
    return found


METRIC = Metric(
    "worst_place",
    summary="difference to the reference at the worst cell, row or column",
    better="lower",
    unit="levels",
    load=lambda source, device: Judge(
        f"the mean difference of {CELL_PX} x {CELL_PX} pixels, a row or a column",
        lambda images, prompts, references: [max(places) for places in worst_places(images, references)],
    ),
    needs_reference=True,
    every_frame=True,
    of_clip=largest,
)
