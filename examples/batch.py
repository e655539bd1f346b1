"""Draw a picture of every prompt in a file, in calls of the measured batch size.

python examples/batch.py best.json prompts.txt pictures
"""

import sys
from pathlib import Path

import torch

import autotune

config, prompts, folder = sys.argv[1], Path(sys.argv[2]).read_text().splitlines(), Path(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
batch = autotune.TunedConfig.load(config).workload.batch
pipe = autotune.load(config)
for start in range(0, len(prompts), batch):
    part = prompts[start : start + batch]
    padded = part + part[-1:] * (batch - len(part))  # a smaller last batch would compile again
    generators = [torch.Generator("cpu").manual_seed(start + i) for i in range(batch)]
    for i, image in enumerate(pipe(padded, generator=generators).images[: len(part)]):
        image.save(folder / f"{start + i:03d}.png")
