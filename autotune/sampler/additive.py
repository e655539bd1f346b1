"""Additive: a Gaussian process over categorical knobs that are nearly additive.

The value is a sum of an effect of each knob's value and smaller effects of pairs. All effects are normal a priori, with
a variance for each knob, so that a knob that does nothing is found to do nothing; a pair's is the product of its knobs'
variances times a common factor: what does nothing alone rarely does something with another. That is Bayesian linear
regression on main effects and pairs with shrinkage, written as a kernel. The variances are fitted to the data (maximum
a posteriori, log-normal priors).

The data may be of several tasks: task 0 is the study itself, the others are earlier studies, of other devices say. Each
has a level and a scale of its own, so that only the shape of an earlier one is used; its effects are those of task 0 as
far as its likeness says, a number from 0 to 1 that is fitted as well. What task 0 has measured itself counts for more.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # numpy's arrays: their types say less than the comments here

KNOB, PAIR, NOISE = (math.log(0.1), 1.5), (math.log(0.1), 1.0), (math.log(0.003), 1.5)  # of the log variances
LIKENESS = (1.5, 1.0)  # of its log odds: an earlier study is taken to be 0.8 alike until the data say otherwise
OWN_SCALE = 4  # own trials: what the scale of earlier studies counts for, while own trials are few
MEAN = 1.0  # variance of each task's constant, in units of the data's
RATE = 0.15  # Adam's
LEAST_NOISE = 1e-5


@dataclass(frozen=True)
class Additive:
    """Fitted. `codes` are the data: a row a trial, a column a knob, the index of its value."""

    codes: Array
    counts: list[int]  # of each knob's values
    theta: Array  # log variances: of each knob, of the pairs, of the noise; log odds of each earlier task's likeness
    shift: float
    scale: float
    weights: Array  # K^-1 y
    root: Array  # L^-1 of K = L L^T
    tasks: Array  # of each row

    def predict(self, codes: Array) -> tuple[Array, Array]:
        """(mean, standard deviation) of task 0's value itself, without the noise, at each of these rows."""
        count = len(self.counts)
        knobs, pair = np.exp(self.theta[:count]), math.exp(self.theta[count])
        mine, theirs = one_hot(codes, self.counts), one_hot(self.codes, self.counts).T
        wide = np.repeat(knobs, self.counts)[:, None]
        sums = _sums(mine @ (wide * theirs), mine @ (wide**2 * theirs), pair)
        across = MEAN * (self.tasks == 0) + _loads(self.theta, count)[self.tasks] * sums
        own = MEAN + _sums(knobs.sum(), (knobs**2).sum(), pair)
        left = own - np.square(across @ self.root.T).sum(axis=1)
        deviation = np.sqrt(np.maximum(left, 1e-9))
        return self.shift + self.scale * (across @ self.weights), self.scale * deviation


@dataclass(frozen=True)
class _Rows:
    """The data as the fit sees them."""

    same: Array  # knob x row x row: 1 where both have the same value
    y: Array  # standardised
    doubt: Array  # variance of each row's value beyond the noise
    tasks: Array


def one_hot(codes: Array, counts: list[int]) -> Array:
    """A column for every value of every knob."""
    made = np.zeros((len(codes), sum(counts)))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    np.put_along_axis(made, codes + starts, 1.0, axis=1)
    return made


def fit(
    codes: Array,
    values: Array,
    *,
    counts: list[int],
    acts: Array,
    before: Array | None = None,
    steps: int = 60,
    doubt: Array | None = None,
    tasks: Array | None = None,
) -> Additive:
    """The model of these values.

    acts    of each knob, whether it can have any effect at all
    before  where to begin: theta of an earlier fit
    doubt   of each value, its own variance beside the noise that all have
    tasks   of each row, the task that it belongs to; left away: 0, of which there must be a row
    """
    tasks = np.zeros(len(values), dtype=int) if tasks is None else tasks
    y, shift, scale = _standardised(values, tasks)
    same = (codes[:, None, :] == codes[None, :, :]).transpose(2, 0, 1).astype(float)
    rows = _Rows(same, y, np.zeros(len(y)) if doubt is None else doubt / scale**2, tasks)
    earlier = int(tasks.max())
    prior = np.array([KNOB] * codes.shape[1] + [PAIR, NOISE] + [LIKENESS] * earlier)
    idle = np.concatenate([~acts, np.zeros(2 + earlier, dtype=bool)])
    theta = np.where(idle, -30.0, prior[:, 0] if before is None else before)
    theta = _climb(theta, rows, prior, idle, steps)
    root = np.linalg.inv(np.linalg.cholesky(_kernel(theta, rows)))
    return Additive(codes, counts, theta, shift, scale, root.T @ (root @ y), root, tasks)


def _standardised(values: Array, tasks: Array) -> tuple[Array, float, float]:
    """(each task's values about its own mean in its own deviations, the mean and the deviation of task 0).

    Of a few values no deviation is known: earlier tasks, where there are some, have their say.
    """
    y = np.zeros(len(values))
    shift, scale = 0.0, 1.0
    for task in range(int(tasks.max()), -1, -1):
        mine = tasks == task
        if not mine.any():
            continue
        mean, deviation = float(np.mean(values[mine])), float(np.std(values[mine]))
        if task == 0 and len(values) > mine.sum():
            others = np.mean([np.var(values[tasks == other]) for other in np.unique(tasks[~mine])])
            deviation = math.sqrt((mine.sum() * deviation**2 + OWN_SCALE * others) / (mine.sum() + OWN_SCALE))
        shift, scale = mean, deviation or 1.0
        y[mine] = (values[mine] - shift) / scale
    return y, shift, scale


def _climb(theta: Array, rows: _Rows, prior: Array, idle: Array, steps: int) -> Array:
    """Adam on the log posterior."""
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(1, steps + 1):
        slope = _slope(theta, rows) - (theta - prior[:, 0]) / prior[:, 1] ** 2
        slope[idle] = 0.0
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        theta = theta + RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        theta[~idle] = np.clip(theta[~idle], -12.0, 4.0)
    return theta


def _kernel(theta: Array, rows: _Rows) -> Array:
    count = len(rows.same)
    noise = math.exp(theta[count + 1]) + LEAST_NOISE
    one, squares, pair = _parts(theta, rows)
    together = rows.tasks[:, None] == rows.tasks
    return MEAN * together + _links(theta, rows) * _sums(one, squares, pair) + np.diag(rows.doubt + noise)


def _parts(theta: Array, rows: _Rows) -> tuple[Array, Array, float]:
    """(sums of the variances of the knobs in which two rows agree, of their squares, the pairs' factor)."""
    knobs = np.exp(theta[: len(rows.same)])
    return np.tensordot(knobs, rows.same, 1), np.tensordot(knobs**2, rows.same, 1), math.exp(theta[len(rows.same)])


def _sums(one: Array, squares: Array, pair: float) -> Array:
    """Main effects, and all pairs of them: (S^2 - sum of squares) / 2 is the sum over pairs."""
    return one + pair * (one**2 - squares) / 2


def _loads(theta: Array, count: int) -> Array:
    """Of each task, how alike task 0 its effects are."""
    return np.append(1.0, 1 / (1 + np.exp(-theta[count + 2 :])))


def _links(theta: Array, rows: _Rows) -> Array:
    """How alike the effects behind each two rows are: 1 within a task, otherwise the product of their likenesses."""
    loads = _loads(theta, len(rows.same))[rows.tasks]
    if not rows.tasks.any():
        return 1.0
    return np.where(rows.tasks[:, None] == rows.tasks, 1.0, np.outer(loads, loads))


def _slope(theta: Array, rows: _Rows) -> Array:
    """The gradient of the log marginal likelihood."""
    count = len(rows.same)
    knobs, noise = np.exp(theta[:count]), math.exp(theta[count + 1])
    inverse = np.linalg.inv(_kernel(theta, rows))
    weights = inverse @ rows.y
    whole = (np.outer(weights, weights) - inverse) / 2
    one, squares, pair = _parts(theta, rows)
    pull = whole * _links(theta, rows)
    own = np.tensordot(rows.same, pull, 2)  # same is 0 or 1, and its own square
    with_others = np.tensordot(rows.same, pull * one, 2)
    by_knob = knobs * (own + pair * (with_others - knobs * own))
    by_pair = pair * np.sum(pull * (one**2 - squares)) / 2
    by_likeness = _by_likeness(theta, rows, whole * _sums(one, squares, pair))
    return np.concatenate([by_knob, [by_pair, noise * np.trace(whole)], by_likeness])


def _by_likeness(theta: Array, rows: _Rows, pull: Array) -> Array:
    """The gradient by the log odds of each earlier task's likeness."""
    loads, found = _loads(theta, len(rows.same)), []
    for task in range(1, len(loads)):
        mine = rows.tasks == task
        across = float(np.sum(pull[mine][:, ~mine] @ loads[rows.tasks[~mine]]))
        found.append(2 * across * loads[task] * (1 - loads[task]))
    return np.array(found)
