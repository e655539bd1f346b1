"""ImageReward: a BLIP model trained on people's preferences (Xu et al. 2023, arXiv 2304.05977).

Scores lie between about -2 and 2. The package `image-reward` computes them; its weights must be on this disk. It
silently cuts a prompt after 35 tokens, so such a prompt is refused here.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.measure.metrics import Images, Judge, Metric
from autotune.measure.metrics._clip import file_digest

if TYPE_CHECKING:
    from PIL.Image import Image

CONTEXT = 35  # tokens, see ImageReward.score
FOLDER = Path("~/.cache/ImageReward")


def load(source: str | None, device: str) -> Judge:
    """source  the folder with ImageReward.pt and med_config.json. Raises UserError where something is missing."""
    folder = Path(source) if source else FOLDER.expanduser()
    if find_spec("ImageReward") is None:
        raise UserError("image_reward needs the package image-reward: pip install image-reward.")
    missing = [name for name in ("ImageReward.pt", "med_config.json") if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"image_reward needs its weights: run `hf download THUDM/ImageReward {' '.join(missing)} --local-dir "
            f"{folder}`."
        )
    model = import_module("ImageReward").load(str(folder / "ImageReward.pt"), device=device, download_root=str(folder))

    def scores(images: Images, prompts: Sequence[str], references: Images) -> list[float]:
        _check_prompts(model.blip.tokenizer, prompts)
        return [_score(model, image, prompt) for image, prompt in zip(images, prompts, strict=True)]

    return Judge(f"ImageReward@{file_digest(folder / 'ImageReward.pt')}", scores)


def _score(model: Any, image: "Image", prompt: str) -> float:
    """The score of one picture. It is passed as a file: older versions of the package take no picture in memory."""
    import torch

    with NamedTemporaryFile(suffix=".png") as file, torch.no_grad():
        image.save(file.name)
        return float(model.score(prompt, file.name))


def _check_prompts(tokenizer: Any, prompts: Sequence[str]) -> None:
    for prompt in prompts:
        tokens = len(tokenizer(prompt).input_ids)
        if tokens > CONTEXT:
            raise UserError(f"the prompt {prompt[:40]!r}... has {tokens} tokens, image_reward reads {CONTEXT}.")


METRIC = Metric(
    "image_reward",
    summary="what people prefer; detects the damage of few steps and of caches (needs the package image-reward)",
    better="higher",
    unit="points",
    load=load,
    takes_model=True,
)
