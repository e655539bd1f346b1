"""Demo: a Stable Diffusion pipeline that ships with autotune and runs on a laptop's CPU. It draws one shape, 64 x 64.

With it, all of autotune (search, measurement, quality limit, report) can be tried and tested without a download or a
GPU. `PIPELINE` is a folder for `DiffusionPipeline.from_pretrained`. `CLIP` is a folder for `CLIPModel.from_pretrained`,
which scores the pictures against their captions. `shapes` draws the training pictures and `train` trains the weights.

The demo does not show how a setting behaves on a large model: it has 256 latent positions and 4.3 million UNet
parameters, so overheads weigh far more than in a large model.
"""

from pathlib import Path
from typing import Final

PIPELINE: Final = Path(__file__).parent / "pipeline"
CLIP: Final = Path(__file__).parent / "clip"
