"""CLIP image similarity: 100 x cosine of the CLIP embeddings of the picture and its reference."""

from autotune.measure.metrics import Images, Judge, Metric
from autotune.measure.metrics._clip import clip, named


def load(source: str | None, device: str) -> Judge:
    model = clip(named(source, "clip_image"), device)

    def scores(images: Images, prompts: object, references: Images) -> list[float]:
        cosines: list[float] = (model.of_images(images) * model.of_images(references)).sum(-1).tolist()
        return [100 * cosine for cosine in cosines]

    return Judge(model.identity, scores)


METRIC = Metric(
    "clip_image",
    summary="whether the picture shows what its reference shows, whatever its size",
    better="higher",
    unit="points",
    load=load,
    needs_reference=True,
    takes_model=True,
    reads_scorer=True,
)
