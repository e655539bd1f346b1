"""A Stable Diffusion pipeline small enough to ship and to run on a laptop's CPU: it draws one shape, 64 x 64.

It is there so that all of autotune (search, measurement, quality guard, report) can be tried and tested with
no download and no GPU. `PIPELINE` is a folder for `DiffusionPipeline.from_pretrained`, `CLIP` one for
`CLIPModel.from_pretrained`, which scores the pictures against their captions. `shapes` draws the true
pictures and `train` remakes the weights. What it does not tell you: how a setting behaves on a large model.
With 256 latent positions and 4.3 million UNet parameters, overheads weigh far more here than they do there.
"""

from pathlib import Path
from typing import Final

PIPELINE: Final = Path(__file__).parent / "pipeline"
CLIP: Final = Path(__file__).parent / "clip"
