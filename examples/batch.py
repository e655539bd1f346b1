"""Draw a picture of every prompt in a file, in calls of the measured batch size.

python examples/batch.py best.json prompts.txt pictures

Run it again after it was stopped: pictures that are there are not drawn again.
"""

import sys
from pathlib import Path

import torch

import autotune

config, prompts, folder = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8").splitlines(), Path(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
files = [folder / f"{number:03d}.png" for number in range(len(prompts))]
batch = autotune.TunedConfig.load(config).workload.batch
pipe = autotune.load(config)
for start in range(0, len(prompts), batch):
    numbers = range(start, min(start + batch, len(prompts)))
    if all(files[number].exists() for number in numbers):
        continue
    padded = [*numbers, *[numbers[-1]] * (batch - len(numbers))]  # a smaller last batch would compile again
    generators = [torch.Generator("cpu").manual_seed(number) for number in padded]
    images = pipe([prompts[number] for number in padded], generator=generators).images
    for number, image in zip(numbers, images, strict=False):
        half = files[number].with_suffix(".part")  # a picture that was cut short must not count as drawn
        image.save(half, "PNG")
        half.rename(files[number])
