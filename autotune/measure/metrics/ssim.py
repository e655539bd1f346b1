"""SSIM: structural similarity to the reference; 1: the same. torchmetrics', 11 x 11 Gaussian window."""

from autotune.measure.metrics import Images, Judge, Metric
from autotune.measure.metrics._pixels import library, pairs


def _scores(images: Images, prompts: object, references: Images) -> list[float]:
    from torchmetrics.functional.image import structural_similarity_index_measure

    # The formula would give equal pictures 1 minus a rounding error in the fifteenth digit.
    return [
        1.0 if same else float(structural_similarity_index_measure(a, b, data_range=1.0))
        for a, b, same in pairs(images, references)
    ]


METRIC = Metric(
    "ssim",
    summary="likeness to the reference in structure; punishes what has only moved",
    better="higher",
    unit="",
    load=lambda source, device: Judge(library(), _scores),
    needs_reference=True,
    every_frame=True,
)
