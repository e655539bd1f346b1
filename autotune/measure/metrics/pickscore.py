"""PickScore: a CLIP model trained on people's choices (Kirstain et al. 2023, arXiv 2305.01569).

The score is the cosine of picture and prompt times the model's own scale, as its authors compute it: about 20 to 23 for
good pictures.
"""

from autotune.measure.metrics import Judge, Metric
from autotune.measure.metrics._clip import clip

SOURCE = "yuvalkirstain/PickScore_v1"  # 3.9 GB


def load(source: str | None, device: str) -> Judge:
    model = clip(source or SOURCE, device)
    scale = float(model.model.logit_scale.detach().exp())
    return Judge(model.identity, lambda images, prompts, _: (scale * model.cosines(images, prompts)).tolist())


METRIC = Metric(
    "pickscore",
    summary=f"what people prefer, learnt from half a million choices ({SOURCE}, 3.9 GB)",
    better="higher",
    unit="points",
    load=load,
    takes_model=True,
)
