"""Quality of a folder of pictures against the baseline's: CLIP score, SSIM, PSNR. Runs in a process of its own.

CLIP score is 100 x cosine of picture and prompt, not clamped (the standard formula; MLPerf, torchmetrics). A prompt
longer than the scorer's context is refused: cut short, it would lower the score by points without a word.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from autotune.errors import UserError
from autotune.pipelines.locate import scorer_folder
from autotune.trial import Quality


def judge(images: Path, baseline: Path, prompts: Sequence[str], scorer: str | None) -> Quality:
    """The quality of the pictures 000.png, 001.png ... in `images`, one for each prompt."""
    mine = [Image.open(images / picture_name(i)).convert("RGB") for i in range(len(prompts))]
    theirs = [Image.open(baseline / picture_name(i)).convert("RGB") for i in range(len(prompts))]
    ssim, psnr_db = likeness(mine, theirs)
    if scorer is None:
        return Quality(metric="likeness", scorer=None, ssim=ssim, psnr_db=psnr_db)
    clip = Scorer(scorer)
    return Quality(metric="clip", scorer=clip.name, clip_scores=clip.scores(mine, prompts), ssim=ssim, psnr_db=psnr_db)


def picture_name(index: int) -> str:
    return f"{index:03d}.png"


class Scorer:
    """A CLIP model in float32 on the CPU, the same wherever the pictures were made."""

    def __init__(self, scorer: str) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        folder = scorer_folder(scorer)
        self.name = f"{scorer}@{weights_digest(folder)}"
        self.model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.processor: Any = CLIPImageProcessorPil.from_pretrained(folder)
        self.context = int(self.model.config.text_config.max_position_embeddings)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raises UserError for a prompt longer than this scorer can read."""
        for prompt in prompts:
            tokens = len(self.tokenizer(prompt).input_ids)
            if tokens > self.context:
                raise UserError(
                    f"the prompt {prompt[:40]!r}... has {tokens} tokens, the scorer reads {self.context}: shorten it."
                )

    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[float, ...]:
        """100 x cosine for each pair."""
        self.check_prompts(prompts)
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        text = self.tokenizer(list(prompts), padding="max_length", max_length=self.context, return_tensors="pt")
        with torch.no_grad():
            output = self.model(pixel_values=pixels, input_ids=text.input_ids, attention_mask=text.attention_mask)
        a, b = (torch.nn.functional.normalize(x, dim=-1) for x in (output.image_embeds, output.text_embeds))
        return tuple((100 * (a * b).sum(-1)).tolist())


def likeness(
    images: Sequence[Image.Image], baseline: Sequence[Image.Image]
) -> tuple[tuple[float, ...], tuple[float | None, ...]]:
    """(SSIM, PSNR in dB) of each pair of pictures; PSNR None where they are the same bit for bit."""
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    ssim, psnr_db = [], []
    for mine, theirs in zip(images, baseline, strict=True):
        a, b = _tensor(mine), _tensor(theirs)
        same = torch.equal(a, b)  # then the formula's rounding would still be seen in the fifteenth digit
        ssim.append(1.0 if same else float(structural_similarity_index_measure(a, b, data_range=1.0)))
        psnr_db.append(None if same else float(peak_signal_noise_ratio(a, b, data_range=1.0)))
    return tuple(ssim), tuple(psnr_db)


def _tensor(image: Image.Image) -> torch.Tensor:
    """1 x 3 x height x width, from 0 to 1; in float64, since flat areas lose digits in float32."""
    import numpy as np

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double() / 255


def weights_digest(folder: Path) -> str:
    """12 hexadecimal digits of the scorer's weights: scores of different weights are never compared."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
