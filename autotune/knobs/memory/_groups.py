"""_groups: the arguments of diffusers' group offloading for each value. A helper of the knobs about offloading."""

from collections.abc import Mapping
from typing import Any

LEAF: Mapping[str, Any] = {"offload_type": "leaf_level", "use_stream": True}
GROUPS: Mapping[str, Mapping[str, Any]] = {
    "leaf": LEAF,
    "leaf_record_stream": {**LEAF, "record_stream": True},
    "leaf_low_memory": {**LEAF, "low_cpu_mem_usage": True},
    "blocks": {"offload_type": "block_level", "num_blocks_per_group": 1, "use_stream": True},
}


def as_source(value: str) -> str:
    """The arguments as source text."""
    return ", ".join(f'{name}="{v}"' if isinstance(v, str) else f"{name}={v}" for name, v in GROUPS[value].items())
