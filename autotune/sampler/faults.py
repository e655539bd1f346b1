"""Faults: how likely a config fails, from which have failed and which have not.

Faults follow values and pairs of values. Each of them is a suspect with a small probability to break a config that has
it; a config fails where any of its suspects strikes (a noisy or). Who is to blame for a failure is shared out among its
suspects by expectation maximisation: one that was seen to work is hardly one.
"""

from itertools import combinations
from typing import Any

import numpy as np

Array = Any

VALUE, PAIR = 0.02, 0.003  # how likely a value, a pair is to break things, before anything is known
PRIOR = 0.05  # trials that this counts for
ROUNDS = 25


class Faults:
    """Fitted to `codes` (a row a trial, a column a knob: the index of its value) and whether each failed."""

    def __init__(self, codes: Array, failed: Array, counts: list[int]) -> None:
        self.counts = counts
        self.pairs = list(combinations(range(len(counts)), 2))
        sizes = [*counts, *(counts[a] * counts[b] for a, b in self.pairs)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        prior = np.full(self.starts[-1], PAIR)
        prior[: sum(counts)] = VALUE
        self.chance = self._fit(self._suspects(codes), failed, prior)

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

    def _fit(self, suspects: Array, failed: Array, prior: Array) -> Array:
        if not failed.any():
            return np.zeros_like(prior)
        size = len(prior)
        seen = np.bincount(suspects.ravel(), minlength=size)
        chance = (PRIOR * prior) / (PRIOR + np.bincount(suspects[~failed].ravel(), minlength=size))
        guilty = suspects[failed]
        for _ in range(ROUNDS):
            mine = chance[guilty]
            blame = mine / (1 - np.prod(1 - mine, axis=1, keepdims=True))
            blamed = np.bincount(guilty.ravel(), weights=blame.ravel(), minlength=size)
            chance = np.minimum((PRIOR * prior + blamed) / (PRIOR + seen), 0.999)
        return chance
