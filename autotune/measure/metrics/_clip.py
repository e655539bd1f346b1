"""CLIP: a CLIP model in float32, and the embeddings that it gives pictures and prompts."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.measure.metrics import Images
from autotune.pipelines.locate import scorer_folder

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 16  # pictures


class Clip:
    """A CLIP model. It runs on the CPU by default, so that scores don't depend on where the pictures were drawn."""

    def __init__(self, source: str, device: str = "cpu") -> None:
        """source  "demo", a hub id or a folder. Raises UserError where it is no CLIP model, or can't be loaded."""
        import torch
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        folder = scorer_folder(source)
        _check_is_clip(folder, source)
        self.identity, self.device = identity(source, folder), device
        try:
            loading = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
            model, report = CLIPModel.from_pretrained(folder, **loading)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self.processor: Any = CLIPImageProcessorPil.from_pretrained(folder)
        except (OSError, ValueError) as error:
            what = str(error).strip().splitlines()[0]
            raise UserError(f"the CLIP model {source!r} can't be loaded: {what.rstrip('.')}.") from error
        if report["missing_keys"]:
            raise UserError(f"the CLIP model {source!r} lacks weights ({min(report['missing_keys'])} and others).")
        self.model: Any = model.eval().to(device)
        self.context = int(self.model.config.text_config.max_position_embeddings)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise UserError for a prompt with more tokens than the model reads: a cut prompt would lower the score."""
        for prompt in self.too_long(prompts):
            tokens = len(self.tokenizer(prompt).input_ids)
            raise UserError(
                f"the prompt {prompt[:40]!r}... has {tokens} tokens, the scorer reads {self.context}: shorten it."
            )

    def too_long(self, prompts: Sequence[str]) -> list[str]:
        """The prompts with more tokens than the model reads."""
        return [prompt for prompt in prompts if len(self.tokenizer(prompt).input_ids) > self.context]

    def of_images(self, images: Images) -> "Tensor":
        """The embeddings of the pictures, of unit length: pictures x dimensions."""
        import torch

        parts = []
        for start in range(0, len(images), AT_ONCE):
            pixels = self.processor(images=list(images[start : start + AT_ONCE]), return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                vision = self.model.vision_model(pixel_values=pixels.to(self.device)).pooler_output
                parts.append(torch.nn.functional.normalize(self.model.visual_projection(vision), dim=-1))
        return torch.cat(parts).cpu()

    def of_prompts(self, prompts: Sequence[str]) -> "Tensor":
        """The embeddings of the prompts, of unit length: prompts x dimensions. Raises UserError as check_prompts."""
        import torch

        self.check_prompts(prompts)
        text = self.tokenizer(list(prompts), padding="max_length", max_length=self.context, return_tensors="pt")
        text = text.to(self.device)
        with torch.no_grad():
            pooled = self.model.text_model(input_ids=text.input_ids, attention_mask=text.attention_mask).pooler_output
            return torch.nn.functional.normalize(self.model.text_projection(pooled), dim=-1).cpu()

    def cosines(self, images: Images, prompts: Sequence[str]) -> "Tensor":
        """The cosine of each picture and its prompt: one number for each picture."""
        return (self.of_images(images) * self.of_prompts(prompts)).sum(-1)


@lru_cache(maxsize=2)
def clip(source: str, device: str) -> Clip:
    """The model, loaded once for all metrics that use it."""
    return Clip(source, device)


def named(source: str | None, metric: str) -> str:
    """The source. Raises UserError if it is None, as in a study that was judged by likeness only."""
    if source is None:
        raise UserError(
            f"{metric} needs a CLIP model and this study has none: name one, such as --metric {metric}="
            "openai/clip-vit-large-patch14."
        )
    return source


def _check_is_clip(folder: Path, source: str) -> None:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind != "clip":
        raise UserError(f"{source!r} is no CLIP model: it is {f'a {kind} model' if kind else 'no model at all'}.")


def identity(source: str, folder: Path) -> str:
    """Which weights these are: the hub id or the folder's name, the hub's revision if there is one, the digest."""
    name = Path(source).name if Path(source).is_dir() else source
    revision = f"{folder.name[:12]}:" if folder.parent.name == "snapshots" else ""
    return f"{name}@{revision}{weights_digest(folder)}"


def weights_digest(folder: Path) -> str:
    """12 hexadecimal digits: the SHA-256 of the folder's *.safetensors files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()[:12]


def file_digest(path: Path) -> str:
    """12 hexadecimal digits: the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
