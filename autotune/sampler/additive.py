"""Additive: a Gaussian process over categorical knobs that are nearly additive.

The value is a sum of an effect of each knob's value and smaller effects of pairs. All effects are normal a priori, with
a variance for each knob, so that a knob that does nothing is found to do nothing; a pair's is the product of its knobs'
variances times a common factor: what does nothing alone rarely does something with another. That is Bayesian linear
regression on main effects and pairs with shrinkage, written as a kernel. The variances are fitted to the data (maximum
a posteriori, log-normal priors).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # numpy's arrays: their types say less than the comments here

KNOB, PAIR, NOISE = (math.log(0.1), 1.5), (math.log(0.1), 1.0), (math.log(0.003), 1.5)  # of the log variances
MEAN = 1.0  # variance of the constant, in units of the data's
RATE = 0.15  # Adam's
LEAST_NOISE = 1e-5


@dataclass(frozen=True)
class Additive:
    """Fitted. `codes` are the data: a row a trial, a column a knob, the index of its value."""

    codes: Array
    counts: list[int]  # of each knob's values
    theta: Array  # log variances: of each knob, of the pairs, of the noise
    shift: float
    scale: float
    weights: Array  # K^-1 y
    root: Array  # L^-1 of K = L L^T

    def predict(self, codes: Array) -> tuple[Array, Array]:
        """(mean, standard deviation) of the value itself, without the noise, at each of these rows."""
        knobs, pair = np.exp(self.theta[:-2]), math.exp(self.theta[-2])
        mine, theirs = one_hot(codes, self.counts), one_hot(self.codes, self.counts).T
        wide = np.repeat(knobs, self.counts)[:, None]
        across = MEAN + _sums(mine @ (wide * theirs), mine @ (wide**2 * theirs), pair)
        own = MEAN + _sums(knobs.sum(), (knobs**2).sum(), pair)
        left = own - np.square(across @ self.root.T).sum(axis=1)
        deviation = np.sqrt(np.maximum(left, 1e-9))
        return self.shift + self.scale * (across @ self.weights), self.scale * deviation


def one_hot(codes: Array, counts: list[int]) -> Array:
    """A column for every value of every knob."""
    made = np.zeros((len(codes), sum(counts)))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    np.put_along_axis(made, codes + starts, 1.0, axis=1)
    return made


def fit(
    codes: Array, values: Array, *, counts: list[int], acts: Array, before: Array | None = None, steps: int = 60
) -> Additive:
    """The model of these values.

    acts    of each knob, whether it can have any effect at all
    before  where to begin: theta of an earlier fit
    """
    shift, scale = float(np.mean(values)), float(np.std(values)) or 1.0
    y = (values - shift) / scale
    same = (codes[:, None, :] == codes[None, :, :]).transpose(2, 0, 1).astype(float)
    middle = np.array([KNOB[0]] * codes.shape[1] + [PAIR[0], NOISE[0]])
    spread = np.array([KNOB[1]] * codes.shape[1] + [PAIR[1], NOISE[1]])
    idle = np.append(~acts, [False, False])
    theta = np.where(idle, -30.0, middle if before is None else before)
    theta = _climb(theta, same, y, middle, spread, idle, steps)
    kernel = _kernel(theta, same)
    root = np.linalg.inv(np.linalg.cholesky(kernel))
    return Additive(codes, counts, theta, shift, scale, root.T @ (root @ y), root)


def _climb(theta: Array, same: Array, y: Array, middle: Array, spread: Array, idle: Array, steps: int) -> Array:
    """Adam on the log posterior."""
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(1, steps + 1):
        slope = _slope(theta, same, y) - (theta - middle) / spread**2
        slope[idle] = 0.0
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        theta = theta + RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        theta[~idle] = np.clip(theta[~idle], -12.0, 4.0)
    return theta


def _kernel(theta: Array, same: Array) -> Array:
    knobs, pair = np.exp(theta[:-2]), math.exp(theta[-2])
    one, squares = np.tensordot(knobs, same, 1), np.tensordot(knobs**2, same, 1)
    noise = math.exp(theta[-1]) + LEAST_NOISE
    return MEAN + _sums(one, squares, pair) + noise * np.eye(same.shape[1])


def _sums(one: Array, squares: Array, pair: float) -> Array:
    """Main effects, and all pairs of them: (S^2 - sum of squares) / 2 is the sum over pairs."""
    return one + pair * (one**2 - squares) / 2


def _slope(theta: Array, same: Array, y: Array) -> Array:
    """The gradient of the log marginal likelihood."""
    knobs, pair = np.exp(theta[:-2]), math.exp(theta[-2])
    inverse = np.linalg.inv(_kernel(theta, same))
    weights = inverse @ y
    pull = (np.outer(weights, weights) - inverse) / 2
    one, squares = np.tensordot(knobs, same, 1), np.tensordot(knobs**2, same, 1)
    own = np.tensordot(same, pull, 2)  # same is 0 or 1, and its own square
    with_others = np.tensordot(same, pull * one, 2)
    by_knob = knobs * (own + pair * (with_others - knobs * own))
    by_pair = pair * np.sum(pull * (one**2 - squares)) / 2
    return np.concatenate([by_knob, [by_pair, math.exp(theta[-1]) * np.trace(pull)]])
