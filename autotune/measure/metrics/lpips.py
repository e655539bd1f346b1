"""LPIPS: how different a picture and its reference look to AlexNet (Zhang et al. 2018); 0: the same.

The implementation is torchmetrics'. Nothing is downloaded: AlexNet's weights must be where torchvision keeps them.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.errors import UserError
from autotune.measure.metrics import Images, Judge, Metric
from autotune.measure.metrics._clip import file_digest
from autotune.measure.metrics._pixels import library, pairs

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

WEIGHTS = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet_Weights.DEFAULT, 233 MiB
LEAST_PX = 32  # of a side: AlexNet's strides leave nothing of a smaller picture


def weights_file() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


def why_not() -> str | None:
    """Why LPIPS can't be computed on this machine, as a sentence; None: it can."""
    if find_spec("torchvision") is None:
        return "lpips needs torchvision: pip install torchvision."
    if not weights_file().is_file():
        url = f"https://download.pytorch.org/models/{WEIGHTS}"
        return f"lpips needs AlexNet's weights: put {url} into {str(weights_file().parent)!r}."
    return None


def load(source: str | None, device: str) -> Judge:
    fault = why_not()
    if fault:
        raise UserError(fault)
    network = _network().to(device)

    def scores(images: Images, prompts: object, references: Images) -> list[float]:
        return [_distance(network, a, b, device) for a, b, _ in pairs(images, references)]

    return Judge(f"alexnet@{file_digest(weights_file())}, {library()}", scores)


def _network() -> "Module":
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    return _NoTrainLpips(net="alex").eval()


def _distance(network: "Module", image: "Tensor", reference: "Tensor", device: str) -> float:
    """`image` and `reference` are 1 x 3 x height x width, from 0 to 1. Raises UserError for a small picture."""
    import torch

    if min(image.shape[-2:]) < LEAST_PX:
        raise UserError(f"lpips needs pictures of {LEAST_PX} pixels a side, not {image.shape[-1]}x{image.shape[-2]}.")
    with torch.no_grad():
        return float(network(image.float().to(device), reference.float().to(device), normalize=True))


METRIC = Metric(
    "lpips",
    summary="how different the picture looks from its reference; not how good it is",
    better="lower",
    unit="",
    load=load,
    needs_reference=True,
)
