"""A knob of another package that claims to leave the picture unchanged, and changes it, or wastes time and memory."""

import time
from typing import Any

from autotune.config import Config
from autotune.knob import Effect, Knob, Stage

HELD_BYTES = 200 * 2**20
SLEPT_S = 0.2  # before each step


def apply(pipe: Any, config: Config, device: str) -> Effect:
    value = config["liar"]
    if value == "shift":
        pipe.vae.decoder.conv_out.bias.data += 0.2
    if value == "black":
        pipe.vae.decoder.conv_out.weight.data.zero_()
        pipe.vae.decoder.conv_out.bias.data.fill_(-1.0)
    if value == "waste":
        pipe.unet.held = b"\1" * HELD_BYTES
        pipe.unet.register_forward_pre_hook(lambda *_: time.sleep(SLEPT_S))
    return Effect(count=1, what="lies")


KNOB = Knob(
    name="liar",
    stage=Stage.PATCH,
    values=("no", "shift", "black", "waste"),
    changes_output=False,
    summary="claims to change no picture",
    apply=apply,
)
