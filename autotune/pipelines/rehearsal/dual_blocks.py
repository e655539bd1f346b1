"""Dual blocks: DBCache of the package cache-dit, switched on in the denoisers, with what it keeps apart for each call.

The first blocks run at every step. Where what they add differs by less than a threshold from what they added at the
last step that was computed in full, what the other blocks added then is added again.

cache-dit knows the blocks of each class of pipelines (its adapters). What it keeps is dropped by itself only where it
has replaced the pipeline's call, and it takes two calls in a step for one sequence unless it knows the class. Here it
gets the denoisers alone, and each call of a step has what it keeps for itself.
"""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# cache-dit's defaults for the first blocks and the first steps that are computed in full. They are meant for dozens of
# both; of fewer, it is a quarter.
MOST_FIRST, MOST_WARMUP, QUARTER = 8, 8, 4
ALWAYS = 1.0  # a threshold at which cache-dit reuses without a look at values


class DualBlocks:
    """DBCache in all denoisers of a pipe.

    first   the blocks of each list that run at every step
    blocks  those that a step may leave out
    """

    def __init__(self, pipe: "DiffusionPipeline", threshold: float) -> None:
        """Raises ValueError where cache-dit has no adapter for the pipeline, or an adapter of other classes."""
        from cache_dit.caching.block_adapters import BlockAdapter, BlockAdapterRegister, FakeDiffusionPipeline
        from cache_dit.caching.cache_adapters import CachedAdapter

        _silence()
        self.threshold = threshold
        adapter = BlockAdapterRegister.get_adapter(pipe)
        if adapter is None:
            raise ValueError(f"cache-dit has no adapter for {type(pipe).__name__}")
        adapter.pipe = FakeDiffusionPipeline()  # the pipeline's class stays as it is
        adapter = CachedAdapter.cachify(adapter, cache_config=self._config(first=1, warmup=1))
        self.manager = adapter.pipe._context_manager
        names, blocks = (BlockAdapter.flatten(each) for each in (adapter.unique_blocks_name, adapter.blocks))
        self.lengths = {name: len(each) for name, each in zip(names, blocks, strict=True)}
        self.first = first_blocks(list(self.lengths.values()))
        self.blocks = sum(length - self.first for length in self.lengths.values())
        if not self.blocks:
            raise ValueError(f"cache-dit finds no block in {type(pipe).__name__} that could be left out")
        self._contexts: dict[str, dict[str, Any]] = {}  # which call of a step -> what is kept for it
        self._reused = 0

    def _config(self, *, first: int, warmup: int) -> Any:
        from cache_dit.caching.cache_contexts import DBCacheConfig

        return DBCacheConfig(
            Fn_compute_blocks=first,
            Bn_compute_blocks=0,
            residual_diff_threshold=self.threshold,
            max_warmup_steps=warmup,
            enable_separate_cfg=False,
        )

    def begin(self, of_step: str, *, fresh: bool, steps: int = 1) -> None:
        """Called before each call of a denoiser.

        of_step  which of the step's calls it is
        fresh    it is the first of a picture: what is kept of another one is dropped
        steps    of the picture
        """
        if fresh:
            self._contexts.clear()
        is_known = of_step in self._contexts
        self.manager._cached_context_manager = self._contexts.setdefault(of_step, {})
        for name in () if is_known else self.lengths:
            config = self._config(first=self.first, warmup=warmup_steps(steps))
            self.manager.new_context(name=name, cache_config=config)
        self._reused = self._reused_until_now()

    def _reused_until_now(self) -> int:
        contexts = self.manager._cached_context_manager
        return sum((n - self.first) * contexts[name].accumulated_cached_steps for name, n in self.lengths.items())

    @property
    def skipped(self) -> int:
        """The blocks that were not computed since `begin`."""
        return self._reused_until_now() - self._reused


def first_blocks(lengths: Sequence[int]) -> int:
    """How many blocks at the front of each list run at every step, for lists of these lengths."""
    return max(1, min(MOST_FIRST, min(lengths) // QUARTER))


def warmup_steps(steps: int) -> int:
    """How many first steps of a call are computed in full."""
    return max(1, min(MOST_WARMUP, steps // QUARTER))


def is_installed() -> bool:
    return find_spec("cache_dit") is not None


def _silence() -> None:
    """cache-dit prints what it does on the standard output, by a handler of its own that all its loggers share.

    Handlers of others stay as they are: files, and those that test runners put into every logger.
    """
    for handler in logging.getLogger("CACHE_DIT").handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.ERROR)
