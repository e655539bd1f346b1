"""The shipped weights do their job: good pictures score high on the shipped CLIP and spoiled ones do not.

    python -m tests.demo.test_weights

run in the repository's root prints the table in autotune/demo/README.md, on all the shipped captions.
"""

import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from autotune.demo import CLIP, PIPELINE, shapes

CAPTIONS = (Path(__file__).parents[2] / "autotune" / "prompts" / "demo.txt").read_text("ascii").splitlines()
BATCH = 8
GUIDANCE = 4.0


def generate(captions: Sequence[str], *, steps: int) -> list[Image.Image]:
    """One 64 x 64 picture a caption, in fp32 and batches of 8; picture i starts from seed i's noise."""
    pipeline = DiffusionPipeline.from_pretrained(PIPELINE, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    for start in range(0, len(captions), BATCH):
        batch = list(captions[start : start + BATCH])
        generators = [torch.Generator("cpu").manual_seed(start + i) for i in range(len(batch))]
        pictures += pipeline(batch, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generators).images
    return pictures


def score(pictures: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
    """100 x the cosine between each picture and its caption on the shipped CLIP, in fp32."""
    clip = CLIPModel.from_pretrained(CLIP, dtype=torch.float32).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(CLIP)(list(pictures), return_tensors="pt").pixel_values
    tokens = CLIPTokenizer.from_pretrained(CLIP)(list(captions), padding=True, return_tensors="pt")
    with torch.no_grad():
        out = clip(**tokens, pixel_values=pixels)  # both embeddings come out with unit length
    cosines: list[float] = (out.image_embeds * out.text_embeds).sum(1).tolist()
    return [100 * cosine for cosine in cosines]


def drawn(captions: Sequence[str]) -> list[Image.Image]:
    """The true picture of each caption."""
    rng = random.Random(0)
    return [Image.fromarray(shapes.render(shapes.scene_of(caption), rng)) for caption in captions]


def black(captions: Sequence[str]) -> list[Image.Image]:
    """A black picture a caption."""
    return [Image.new("RGB", (shapes.SIDE, shapes.SIDE)) for _ in captions]


def noise(captions: Sequence[str]) -> list[Image.Image]:
    """A picture of random pixels a caption."""
    rng = np.random.default_rng(0)
    size = (len(captions), shapes.SIDE, shapes.SIDE, 3)
    return [Image.fromarray(pixels) for pixels in rng.integers(0, 256, size, dtype=np.uint8)]


def wrong(captions: Sequence[str]) -> list[str]:
    """Each picture gets the next one's caption."""
    return [*captions[1:], *captions[:1]]


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return CAPTIONS[:BATCH]


@pytest.fixture(scope="module")
def pictures(captions: list[str]) -> list[Image.Image]:
    """What the pipeline makes of the captions in 20 steps."""
    return generate(captions, steps=20)


def test_generated_pictures_score_about_as_high_as_drawn_ones(pictures: list[Image.Image], captions: list[str]) -> None:
    true, made = score(drawn(captions), captions), score(pictures, captions)
    assert abs(statistics.mean(true) - statistics.mean(made)) < 3


def test_every_generated_picture_scores_lower_with_a_wrong_caption(
    pictures: list[Image.Image], captions: list[str]
) -> None:
    right, swapped = score(pictures, captions), score(pictures, wrong(captions))
    assert all(a > b + 30 for a, b in zip(right, swapped, strict=True))


@pytest.mark.parametrize("spoiled", [black, noise])
def test_a_spoiled_picture_scores_lower_than_a_clean_one(
    spoiled: Callable[[Sequence[str]], list[Image.Image]], pictures: list[Image.Image], captions: list[str]
) -> None:
    clean, worse = score(pictures, captions), score(spoiled(captions), captions)
    assert all(a > b + 30 for a, b in zip(clean, worse, strict=True))


def test_three_steps_score_lower_than_twenty(pictures: list[Image.Image], captions: list[str]) -> None:
    few = score(generate(captions, steps=3), captions)
    assert statistics.mean(score(pictures, captions)) > statistics.mean(few) + 2


def test_one_seed_gives_one_picture(captions: list[str]) -> None:
    for first, second in zip(generate(captions[:2], steps=2), generate(captions[:2], steps=2), strict=True):
        assert np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).max() <= 1


def test_the_text_encoder_is_the_clips_text_tower() -> None:
    clip = CLIPModel.from_pretrained(CLIP).text_model.state_dict()
    encoder = DiffusionPipeline.from_pretrained(PIPELINE).text_encoder.state_dict()
    for name, weight in encoder.items():
        assert torch.equal(weight, clip[name.removeprefix("text_model.")].to(weight.dtype)), name


def test_the_weights_are_safetensors_alone_and_below_25_megabytes() -> None:
    files = [path for folder in (PIPELINE, CLIP) for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 25e6


def _print_table() -> None:
    """CLIP scores on the shipped captions, and paired differences to 20 steps +- their standard errors."""
    base = generate(CAPTIONS, steps=20)
    reference = score(base, CAPTIONS)
    rows = [("drawn", score(drawn(CAPTIONS), CAPTIONS)), ("generated, 20 steps", reference)]
    rows += [(f"generated, {n} steps", score(generate(CAPTIONS, steps=n), CAPTIONS)) for n in (12, 8, 5, 3)]
    rows += [("generated, 20 steps, wrong captions", score(base, wrong(CAPTIONS)))]
    rows += [("black", score(black(CAPTIONS), CAPTIONS)), ("random pixels", score(noise(CAPTIONS), CAPTIONS))]
    print("| pictures | CLIP score | difference to 20 steps |\n|---|---|---|")
    for name, scores in rows:
        apart = [a - b for a, b in zip(scores, reference, strict=True)]
        error = statistics.stdev(apart) / len(apart) ** 0.5
        print(f"| {name} | {statistics.mean(scores):z.1f} | {statistics.mean(apart):+.2f} +- {error:.2f} |")


if __name__ == "__main__":
    _print_table()
