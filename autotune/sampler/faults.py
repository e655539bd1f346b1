"""Faults: how likely a config fails, from which have failed and which have not.

Faults follow values and pairs of values. Each of them is a suspect with a small probability to break a config that has
it; a config fails where any of its suspects strikes (a noisy or). Who is to blame for a failure is shared out among its
suspects by expectation maximisation: one that was seen to work is hardly one.
"""

from itertools import combinations
from typing import Any

import numpy as np

from autotune.sampler.seen import Seen

Array = Any

VALUE, PAIR = 0.02, 0.003  # how likely a value, a pair is to break things, before anything is known
PRIOR = 0.05  # trials that this counts for
ROUNDS = 25
EARLIER = 0.25  # what a trial of an earlier study, on another device perhaps, counts for


class Faults:
    """Fitted to `codes` (a row a trial, a column a knob: the index of its value) and whether each failed.

    weights  what each trial counts for, at most 1
    """

    def __init__(self, codes: Array, failed: Array, counts: list[int], weights: Array | None = None) -> None:
        self.counts = counts
        self.pairs = list(combinations(range(len(counts)), 2))
        sizes = [*counts, *(counts[a] * counts[b] for a, b in self.pairs)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        prior = np.full(self.starts[-1], PAIR)
        prior[: sum(counts)] = VALUE
        weights = np.ones(len(codes)) if weights is None else weights
        self.chance = self._fit(self._suspects(codes), failed, prior, weights)

    @classmethod
    def of(cls, seen: Seen, but: set[int]) -> "Faults":
        """Of all that was seen; `but`: the numbers of trials whose failure says nothing."""
        failed = [t.params for t in seen.failures if t.number not in but]
        codes = [seen.codes_measured, seen.codes([*failed, *(one.params for one in seen.earlier_failed)])]
        weights = np.where(seen.own, 1.0, EARLIER)
        weights = np.concatenate([weights, [1.0] * len(failed), [EARLIER] * len(seen.earlier_failed)])
        rows = np.concatenate(codes)
        return cls(rows, np.arange(len(rows)) >= len(seen.tasks), seen.counts, weights)

    def works(self, codes: Array) -> Array:
        """The probability that each of these configs does not fail."""
        if not self.chance.any():
            return np.ones(len(codes))
        return np.exp(np.log1p(-self.chance)[self._suspects(codes)].sum(axis=1))

    def _suspects(self, codes: Array) -> Array:
        """The indices of each config's values and pairs."""
        singles = [codes[:, k] for k in range(len(self.counts))]
        both = [codes[:, a] * self.counts[b] + codes[:, b] for a, b in self.pairs]
        return np.stack([*singles, *both], axis=1) + self.starts[:-1]

    def _fit(self, suspects: Array, failed: Array, prior: Array, weights: Array) -> Array:
        if not failed.any():
            return np.zeros_like(prior)
        each = np.broadcast_to(weights[:, None], suspects.shape)
        seen = self._sum(suspects, each)
        chance = (PRIOR * prior) / (PRIOR + self._sum(suspects[~failed], each[~failed]))
        guilty = suspects[failed]
        for _ in range(ROUNDS):
            mine = chance[guilty]
            blame = mine / (1 - np.prod(1 - mine, axis=1, keepdims=True))
            blamed = self._sum(guilty, blame * each[failed])
            chance = np.minimum((PRIOR * prior + blamed) / (PRIOR + seen), 0.999)
        return chance

    def _sum(self, suspects: Array, weights: Array) -> Array:
        """Of each suspect, the weights of where it is."""
        return np.bincount(suspects.ravel(), weights=weights.ravel(), minlength=int(self.starts[-1]))
