"""PSNR: peak signal-to-noise ratio to the reference, in dB. There is no number for equal pictures."""

from autotune.measure.metrics import Images, Judge, Metric
from autotune.measure.metrics._pixels import library, pairs


def _scores(images: Images, prompts: object, references: Images) -> list[float | None]:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return [
        None if same else float(peak_signal_noise_ratio(a, b, data_range=1.0))
        for a, b, same in pairs(images, references)
    ]


METRIC = Metric(
    "psnr",
    summary="likeness to the reference pixel by pixel",
    better="higher",
    unit="dB",
    load=lambda source, device: Judge(library(), _scores),
    needs_reference=True,
)
