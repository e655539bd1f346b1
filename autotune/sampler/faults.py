"""Faults: the probability that a config fails, learned from failed and successful trials.

Single values and pairs of values cause failures. Each is a suspect with a small probability to break a config that has
it, and a config fails if any of its suspects breaks it (a noisy-or model). Expectation maximisation shares the blame
for each failure among the suspects: one that was seen to work gets little of it.
"""

from collections.abc import Collection
from itertools import combinations

import numpy as np

from autotune.sampler.arrays import Bools, Codes, Floats, Ints
from autotune.sampler.observations import Observations
from autotune.sampler.scale import INACTIVE

PARTS = 4  # of a number's scale
VALUE, PAIR = 0.02, 0.003  # prior probability that a value, or a pair, breaks a config
PRIOR = 0.05  # trials that the prior counts as
ROUNDS = 25  # of expectation maximisation
EARLIER = 0.25  # what a trial of an earlier study counts, perhaps one of another device


class Faults:
    """The fitted model.

    codes    trials x parameters: the index of each parameter's value, or the position of a number
    failed   did each trial fail?
    counts   the number of values of each parameter; 0 for a number, of which each part of its scale is a suspect
    weights  what each trial counts, from 0 to 1; default: 1
    """

    def __init__(self, codes: Codes, failed: Bools, counts: list[int], weights: Floats | None = None) -> None:
        self.numbers = [k for k, count in enumerate(counts) if count == 0]
        self.counts = counts = [count or PARTS + 1 for count in counts]
        self.pairs = list(combinations(range(len(counts)), 2))
        sizes = [*counts, *(counts[a] * counts[b] for a, b in self.pairs)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        prior = np.full(self.starts[-1], PAIR)
        prior[: sum(counts)] = VALUE
        weights = np.ones(len(codes)) if weights is None else weights
        self.chance = self._fit(self._suspects(codes), failed, prior, weights)

    @classmethod
    def of(cls, observed: Observations, ignore: Collection[int]) -> "Faults":
        """The model of all observed trials, except the failures with a number in `ignore`."""
        failed = [t.params for t in observed.failures if t.number not in ignore]
        earlier = [trial.params for trial in observed.transferred_failures]
        codes = [observed.codes_measured, observed.codes([*failed, *earlier])]
        weights = np.where(observed.own, 1.0, EARLIER)
        weights = np.concatenate([weights, [1.0] * len(failed), [EARLIER] * len(earlier)])
        rows = np.concatenate(codes)
        return cls(rows, np.arange(len(rows)) >= len(observed.tasks), observed.counts, weights)

    def works(self, codes: Codes) -> Floats:
        """The probability that each of these configs (a row each) does not fail."""
        if not self.chance.any():
            return np.ones(len(codes))
        works: Floats = np.exp(np.log1p(-self.chance)[self._suspects(codes)].sum(axis=1))
        return works

    def _suspects(self, codes: Codes) -> Ints:
        """configs x suspects of each: the indices of its values and pairs."""
        for k in self.numbers:
            parts = np.where(codes[:, k] == INACTIVE, 0, 1 + np.minimum(codes[:, k] * PARTS, PARTS - 1))
            codes = np.concatenate([codes[:, :k], np.floor(parts)[:, None], codes[:, k + 1 :]], axis=1)
        codes = codes.astype(int)
        singles = [codes[:, k] for k in range(len(self.counts))]
        both = [codes[:, a] * self.counts[b] + codes[:, b] for a, b in self.pairs]
        suspects: Ints = np.stack([*singles, *both], axis=1) + self.starts[:-1]
        return suspects

    def _fit(self, suspects: Ints, failed: Bools, prior: Floats, weights: Floats) -> Floats:
        """The probability of each suspect to break a config that has it."""
        if not failed.any():
            return np.zeros_like(prior)
        each = np.broadcast_to(weights[:, None], suspects.shape)
        present = self._sum(suspects, each)
        chance = (PRIOR * prior) / (PRIOR + self._sum(suspects[~failed], each[~failed]))
        guilty = suspects[failed]
        for _ in range(ROUNDS):
            strikes = chance[guilty]
            blame = strikes / (1 - np.prod(1 - strikes, axis=1, keepdims=True))
            blamed = self._sum(guilty, blame * each[failed])
            chance = np.minimum((PRIOR * prior + blamed) / (PRIOR + present), 0.999)
        return chance

    def _sum(self, suspects: Ints, weights: Floats) -> Floats:
        """For each suspect, the sum of the weights where it occurs."""
        sums = np.bincount(suspects.ravel(), weights=weights.ravel(), minlength=int(self.starts[-1]))
        return np.asarray(sums, dtype=float)
