"""CLIP score: 100 x cosine of the CLIP embeddings of a picture and its prompt.

The formula is the standard one (MLPerf, torchmetrics). Scores below 0 are not clamped.
"""

from autotune.measure.metrics import Judge, Metric
from autotune.measure.metrics._clip import clip, named


def load(source: str | None, device: str) -> Judge:
    model = clip(named(source, "clip_score"), device)
    return Judge(model.identity, lambda images, prompts, _: (100 * model.cosines(images, prompts)).tolist())


METRIC = Metric(
    "clip_score",
    summary="how well the picture fits its prompt; blind to fine texture",
    better="higher",
    unit="points",
    load=load,
    takes_model=True,
    reads_scorer=True,
)
