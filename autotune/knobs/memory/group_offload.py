"""group_offload: how group offloading moves weights to the device: layer by layer, or block by block.

"leaf" prefetches one layer on a stream of its own, from pinned memory. "leaf_record_stream" lets the host run ahead
instead of waiting for the copy: faster, with more memory in use. "leaf_low_memory" pins a layer only when it is copied:
half of the host memory, and slower. "blocks" prefetches one block: fewer and larger copies. "leaf_disk" reads each
layer from a file in the folder for temporary files (TMPDIR), where host memory can't hold the weights either. It is
slow, and writes all weights, so it is available only where a space file or --fix names it. Not yet seen on a GPU.
"""

from autotune.config import Config, Value
from autotune.knob import Knob, Stage
from autotune.knobs.memory._groups import DISK, GROUPS
from autotune.target import Target


def why_not(value: Value, target: Target) -> str | None:
    if value != "leaf" and not target.device.is_nvidia:
        return "prefetches on a CUDA stream, which needs an NVIDIA GPU"
    return None


def clash(config: Config, target: Target) -> str | None:
    value = config.get("group_offload", "leaf")
    if value != "leaf" and config["offload"] not in ("group", "text_encoders"):
        return f"group_offload says how offload=group moves weights, and offload={config['offload']} reads none of it"
    packed = [name for name in ("quantization", "quantize_text_encoder") if config[name] != "none"]
    if config["offload"] == "text_encoders":
        packed = [name for name in packed if name == "quantize_text_encoder"]
    if value == DISK and packed:
        return f"weights of {packed[0]}={config[packed[0]]} can't be written to the files of group_offload={DISK}"
    return None


KNOB = Knob(
    name="group_offload",
    stage=Stage.PLACEMENT,
    modifies="offload",
    values=tuple(GROUPS),
    changes_output=False,
    also=lambda value: value == DISK,
    summary="what group offloading moves at a time, and how",
    why_not=why_not,
    clash=clash,
)
