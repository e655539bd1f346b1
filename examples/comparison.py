"""Compare the pictures and the latency of two exported configs: cells for a notebook, or one script.

autotune export STUDY --pick 0 -o baseline.json
python examples/comparison.py baseline.json best.json
"""

# %% Both pipelines
import sys
import time

import torch
from PIL import Image

import autotune

pipes = {path: autotune.load(path) for path in sys.argv[1:3]}  # in a notebook: the two paths
prompts = autotune.TunedConfig.load(sys.argv[2]).workload.prompts[:4]


# %% Interleaved calls with the same prompts and seeds, so that a disturbance affects both configs alike
def draw(name: str, number: int) -> tuple[Image.Image, float]:
    """A picture and the seconds of its call. The picture is in the host's memory, so the GPU has finished."""
    start = time.perf_counter()
    image = pipes[name](prompts[number], generator=torch.Generator("cpu").manual_seed(number)).images[0]
    return image, time.perf_counter() - start


for name, pipe in pipes.items():
    pipe.set_progress_bar_config(disable=True)
    draw(name, 0)  # the first call compiles

drawn = [(name, *draw(name, number)) for number in range(len(prompts)) for name in pipes]

# %% The seconds, and the pictures: those of the first config above those of the second
for name in pipes:
    best_s = min(seconds for path, _, seconds in drawn if path == name)
    print(f"{name}: {best_s:.3f} s, the best of {len(prompts)} calls")

width, height = drawn[0][1].size
sheet = Image.new("RGB", (width * len(prompts), height * 2))
for index, (_, image, _) in enumerate(drawn):
    sheet.paste(image, (index // 2 * width, index % 2 * height))
sheet.save("comparison.png")
