"""What torch.compile did in this process: graphs, breaks, recompilations, seconds. Asked for is not done."""

from collections.abc import Mapping

from autotune.measurement import Compilation


def compilation() -> Compilation | None:
    """So far; None where nothing was compiled, or torch.compile was never loaded.

    A frame is a function that Dynamo looked at; its second graph and those after it are recompilations: another shape,
    another type. Where a frame has more graphs than Dynamo allows it runs as plain Python from then on: `fallbacks`.
    """
    from torch._dynamo.utils import counters, get_compilation_metrics

    attempts = get_compilation_metrics()
    if not attempts:
        return None
    return Compilation(
        graphs=int(counters["stats"]["unique_graphs"]),
        graph_breaks=sum(counters["graph_break"].values()),
        recompilations=sum(a.recompile_reason is not None and a.fail_reason is None for a in attempts),
        fallbacks=sum(a.fail_reason is not None for a in attempts),
        seconds=sum(a.entire_frame_compile_time_s or 0.0 for a in attempts),
        uncached=_uncached(counters["inductor"]),
    )


def _uncached(inductor: Mapping[str, int]) -> int | None:
    """None where Inductor was not asked for code, or has asked no cache (TORCHINDUCTOR_FORCE_DISABLE_CACHES)."""
    hits, *others = (inductor.get(f"fxgraph_cache_{what}", 0) for what in ("hit", "miss", "bypass"))
    return sum(others) if hits or any(others) else None


def keep_all_attempts() -> None:
    """torch keeps the last 64 attempts to compile only; a pipe with several sizes may need more."""
    from torch._dynamo.utils import set_compilation_metrics_limit

    set_compilation_metrics_limit(100_000)
