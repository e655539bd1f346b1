"""One picture with an exported config: `autotune run`. The libraries live in this process, as in production."""

import logging
import time
import warnings
from pathlib import Path

from autotune.device import find_device
from autotune.errors import UserError
from autotune.tuned import TunedConfig

FORMATS = (".png", ".jpg", ".jpeg", ".webp")


def draw(config: Path, prompt: str, output: Path, *, seed: int = 0, device: str | None = None) -> str:
    """Write the picture and say how long it took. Raises UserError before anything heavy is loaded where it can."""
    tuned = TunedConfig.load(config)
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    if output.suffix.lower() not in FORMATS:
        raise UserError(f"{str(output)!r} is no picture file: end its name in {', '.join(FORMATS)}.")
    if not output.parent.is_dir():
        raise UserError(f"{str(output)!r} can't be written: there is no folder {str(output.parent)!r}.")
    if output.is_dir():
        raise UserError(f"{str(output)!r} can't be written: it is a folder.")
    find_device(device or tuned.device.kind)
    _quieten()
    started = time.perf_counter()
    pipe = tuned.pipeline_on(device)
    pipe.set_progress_bar_config(disable=True)
    loaded = time.perf_counter()
    from autotune.measure import call_pipe

    batch = tuned.workload.batch
    image = call_pipe(pipe, tuned.workload, [prompt] * batch, list(range(seed, seed + batch)))[0]
    done = time.perf_counter()
    try:
        image.save(output)
    except OSError as error:
        raise UserError(f"{str(output)!r} can't be written: {error.strerror or error}.") from None
    return f"loaded in {loaded - started:.1f} s, drawn in {done - loaded:.1f} s (a first call, compilation included)"


def _quieten() -> None:
    """The libraries' own remarks and progress bars would drown the one line that this command prints."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
