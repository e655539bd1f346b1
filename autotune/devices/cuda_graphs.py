"""CUDA graphs: how many this process captured, and how many Inductor left out, with its reasons."""

import sys
from collections.abc import Iterable
from typing import Any


def captured() -> int:
    """The number of CUDA graphs that are kept for replay, on all GPUs that this process sees.

    A CUDA graph is captured at the second call of a compiled graph: call the pipe twice before.
    """
    import torch

    trees = sys.modules.get("torch._inductor.cudagraph_trees")
    if trees is None:  # nothing was compiled for CUDA graphs
        return 0
    managers = (trees.get_manager(index, create_if_none_exists=False) for index in range(torch.cuda.device_count()))
    return sum(_nodes(manager.get_roots()) for manager in managers if manager is not None)


def _nodes(nodes: Iterable[Any]) -> int:
    """The number of these graphs and of all that follow them."""
    return sum(1 + _nodes(node for after in node.children.values() for node in after) for node in nodes)


def skipped() -> tuple[int, tuple[str, ...]]:
    """(compiled graphs that run without a CUDA graph although the mode asks for one, the reasons that torch kept)."""
    from torch._dynamo.utils import counters, get_compilation_metrics

    reasons = {attempt.cudagraph_skip_reason for attempt in get_compilation_metrics()} - {None}
    return int(counters["inductor"]["cudagraph_skips"]), tuple(sorted(reasons))
