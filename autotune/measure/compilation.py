"""Compilation counts: what torch.compile really did in this process, in graphs, breaks and seconds."""

from collections.abc import Mapping

from autotune.devices import cuda_graphs
from autotune.measurement import Compilation


def compilation() -> Compilation | None:
    """What was compiled in this process so far; None where nothing was.

    Dynamo compiles a function once, and again for another shape or type: a recompilation. When a function has more
    graphs than Dynamo allows, it runs as plain Python from then on: a fallback.
    """
    from torch._dynamo.utils import counters, get_compilation_metrics

    attempts = get_compilation_metrics()
    if not attempts:
        return None
    skipped, _ = cuda_graphs.skipped()
    return Compilation(
        graphs=int(counters["stats"]["unique_graphs"]),
        graph_breaks=sum(counters["graph_break"].values()),
        recompilations=sum(a.recompile_reason is not None and a.fail_reason is None for a in attempts),
        fallbacks=sum(a.fail_reason is not None for a in attempts),
        seconds=sum(a.entire_frame_compile_time_s or 0.0 for a in attempts),
        uncached=_uncached(counters["inductor"]),
        cuda_graphs=cuda_graphs.captured(),
        cuda_graph_skips=skipped,
    )


def _uncached(inductor: Mapping[str, int]) -> int | None:
    """How many graphs Inductor did not find in its cache.

    None where Inductor compiled nothing, or used no cache (TORCHINDUCTOR_FORCE_DISABLE_CACHES).
    """
    hits, *others = (inductor.get(f"fxgraph_cache_{what}", 0) for what in ("hit", "miss", "bypass"))
    return sum(others) if hits or any(others) else None


def keep_all_attempts() -> None:
    """Keep the metrics of every attempt to compile. torch keeps the last 64, which is too few for several sizes."""
    from torch._dynamo.utils import set_compilation_metrics_limit

    set_compilation_metrics_limit(100_000)
