"""Additive: a Gaussian process over categorical parameters and numbers whose effects nearly add up.

The value is a sum of one effect for each parameter's value, and of smaller effects of pairs. A priori all effects are
normal, with a variance for each parameter, so that a parameter without effect is recognised. The variance of a pair is
the product of its two parameters' variances and a common factor: a parameter that does nothing alone rarely does
something in a pair. This is Bayesian linear regression with shrinkage on main effects and pairs, written as a kernel.
The variances are fitted to the data (maximum a posteriori, log-normal priors).

A number's effect is smooth instead of one effect for each value: a squared exponential kernel over its position on a
scale from 0 to 1, whose length is fitted as well. Where the number has no effect (INACTIVE), this part is 0.

The data may be of several tasks. Task 0 is the study itself, the others are earlier studies, of other devices perhaps.
Each task has its own level and scale, so only the shape of an earlier one is used. How far its effects are those of
task 0 is its similarity, a number from 0 to 1, which is fitted too. The more task 0 has measured, the less the others
count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autotune.sampler.arrays import Bools, Codes, Floats, Ints
from autotune.sampler.scale import INACTIVE

# (mean, standard deviation) of the priors of the log variances.
PARAMETER, PAIR, NOISE = (math.log(0.1), 1.5), (math.log(0.1), 1.0), (math.log(0.003), 1.5)
LENGTH = (math.log(0.4), 0.5)  # the same of the log length, in parts of the scale, over which a number's effect changes
SIMILARITY = (1.5, 1.0)  # the same of its log odds: an earlier study counts as 0.8 similar until the data disagree
OWN_SCALE = 4  # own trials that the scale of earlier studies counts as, while own trials are few
MEAN = 1.0  # variance of each task's constant, where the data have variance 1
RATE = 0.15  # the learning rate of Adam
LEAST_NOISE = 1e-5


@dataclass(frozen=True)
class Additive:
    """The fitted model.

    codes   trials x parameters: the index of each parameter's value, or the position of a number
    counts  the number of values of each parameter; 0 for a number
    theta   log variances of each parameter, of the pairs, of the noise; then the log odds of each earlier task's
            similarity; then the log length of each number
    shift, scale  the mean and the standard deviation of task 0's values
    weights, root  K^-1 y and L^-1, where K = L L^T is the kernel of the data and y the standardised values
    tasks   the task of each trial
    """

    codes: Codes
    counts: list[int]
    theta: Floats
    shift: float
    scale: float
    weights: Floats
    root: Floats
    tasks: Ints

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """(mean, standard deviation) of task 0's value at each of these rows, without the noise of a measurement."""
        count = len(self.counts)
        variances, pair = np.exp(self.theta[:count]), math.exp(self.theta[count])
        asked, known = one_hot(codes, self.counts), one_hot(self.codes, self.counts).T
        wide = np.repeat(variances, self.counts)[:, None]
        one, squares = asked @ (wide * known), asked @ (wide**2 * known)
        choices = variances[np.array(self.counts) > 0]
        own_one, own_squares = choices.sum(), (choices**2).sum()
        for k, length in zip(_numbers(self.counts), self._lengths(), strict=True):
            shared = variances[k] * _smooth(_places(codes, k), _places(self.codes, k), length)
            own_share = variances[k] * (codes[:, k] != INACTIVE)
            one, squares = one + shared, squares + shared**2
            own_one, own_squares = own_one + own_share, own_squares + own_share**2
        sums = _with_pairs(one, squares, pair)
        across = MEAN * (self.tasks == 0) + _similarities(self.theta, count, self.tasks)[self.tasks] * sums
        own = MEAN + _with_pairs(own_one, own_squares, pair)
        left = own - np.square(across @ self.root.T).sum(axis=1)
        deviation = np.sqrt(np.maximum(left, 1e-9))
        return self.shift + self.scale * (across @ self.weights), self.scale * deviation

    def _lengths(self) -> Floats:
        return np.exp(self.theta[len(self.theta) - len(_numbers(self.counts)) :])


@dataclass(frozen=True)
class _Rows:
    """The data as the fit uses them.

    same     parameters x rows x rows: 1 where two rows have the same value
    y        standardised values
    doubt    the variance of each value, beside the noise
    tasks    the task of each row
    numbers  parameter -> the positions of a number in each row, by which `same` is replaced
    """

    same: Floats
    y: Floats
    doubt: Floats
    tasks: Ints
    numbers: Mapping[int, Floats] = field(default_factory=dict)

    def shared(self, theta: Floats) -> Floats:
        """`same`, and for a number how near the positions of two rows are, from 0 to 1."""
        if not self.numbers:
            return self.same
        shared = self.same.copy()
        for (k, places), length in zip(self.numbers.items(), np.exp(theta[-len(self.numbers) :]), strict=True):
            shared[k] = _smooth(places, places, length)
        return shared


def _numbers(counts: Sequence[int]) -> list[int]:
    return [k for k, count in enumerate(counts) if count == 0]


def _places(codes: Codes, k: int) -> Floats:
    """The positions of a number in each row."""
    places: Floats = codes[:, k].astype(float)
    return places


def _smooth(a: Floats, b: Floats, length: float) -> Floats:
    """a x b: how much of a number's effect two positions share; nothing where one is INACTIVE."""
    active = np.outer(a != INACTIVE, b != INACTIVE)
    near: Floats = active * np.exp(-0.5 * ((a[:, None] - b[None, :]) / length) ** 2)
    return near


def one_hot(codes: Codes, counts: list[int]) -> Floats:
    """rows x all values of all parameters but numbers: 1 where the row has the value."""
    columns = [k for k, count in enumerate(counts) if count]
    made = np.zeros((len(codes), sum(counts)))
    starts = np.concatenate([[0], np.cumsum([counts[k] for k in columns])[:-1]]).astype(int)
    np.put_along_axis(made, codes[:, columns].astype(int) + starts, 1.0, axis=1)
    return made


def fit(
    codes: Codes,
    values: Floats,
    *,
    counts: list[int],
    acts: Bools,
    before: Floats | None = None,
    steps: int = 60,
    doubt: Floats | None = None,
    tasks: Ints | None = None,
) -> Additive:
    """The model of these values.

    codes   rows x parameters: the index of each parameter's value, or the position of a number
    values  one per row, finite
    counts  the number of values of each parameter; 0 for a number
    acts    can each parameter have an effect at all?
    before  where the fit starts: theta of an earlier fit; default: at the priors
    steps   of gradient ascent
    doubt   the variance of each value, beside the noise that all have; default: 0
    tasks   the task of each row; default: 0. At least one row must be of task 0
    """
    tasks = np.zeros(len(values), dtype=int) if tasks is None else tasks
    y, shift, scale = _standardised(values, tasks)
    same = (codes[:, None, :] == codes[None, :, :]).transpose(2, 0, 1).astype(float)
    numbers = {k: _places(codes, k) for k in _numbers(counts)}
    rows = _Rows(same, y, np.zeros(len(y)) if doubt is None else doubt / scale**2, tasks, numbers)
    earlier = int(tasks.max())
    prior = np.array([PARAMETER] * codes.shape[1] + [PAIR, NOISE] + [SIMILARITY] * earlier + [LENGTH] * len(numbers))
    fixed = np.concatenate([~acts, np.zeros(2 + earlier + len(numbers), dtype=bool)])
    theta = np.where(fixed, -30.0, prior[:, 0] if before is None else before)
    theta = _climb(theta, rows, prior, fixed, steps)
    root = np.linalg.inv(np.linalg.cholesky(_kernel(theta, rows)))
    return Additive(codes, counts, theta, shift, scale, root.T @ (root @ y), root, tasks)


def _standardised(values: Floats, tasks: Ints) -> tuple[Floats, float, float]:
    """(values standardised within each task, mean and standard deviation of task 0).

    Few values of task 0 don't show its standard deviation: that of the earlier tasks, if any, is averaged in.
    """
    y = np.zeros(len(values))
    shift, scale = 0.0, 1.0
    for task in range(int(tasks.max()), -1, -1):
        rows = tasks == task
        if not rows.any():
            continue
        mean, deviation = float(np.mean(values[rows])), float(np.std(values[rows]))
        if task == 0 and len(values) > rows.sum():
            others = np.mean([np.var(values[tasks == other]) for other in np.unique(tasks[~rows])])
            deviation = math.sqrt((rows.sum() * deviation**2 + OWN_SCALE * others) / (rows.sum() + OWN_SCALE))
        shift, scale = mean, deviation or 1.0
        y[rows] = (values[rows] - shift) / scale
    return y, shift, scale


def _climb(theta: Floats, rows: _Rows, prior: Floats, fixed: Bools, steps: int) -> Floats:
    """Theta after so many steps of Adam on the log posterior."""
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(1, steps + 1):
        slope = _slope(theta, rows) - (theta - prior[:, 0]) / prior[:, 1] ** 2
        slope[fixed] = 0.0
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        theta = theta + RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        theta[~fixed] = np.clip(theta[~fixed], -12.0, 4.0)
    return theta


def _kernel(theta: Floats, rows: _Rows) -> Floats:
    """rows x rows: the prior covariance of the values, with their noise."""
    count = len(rows.same)
    noise = math.exp(theta[count + 1]) + LEAST_NOISE
    one, squares, pair = _parts(theta, rows)
    together = rows.tasks[:, None] == rows.tasks
    kernel: Floats = (
        MEAN * together + _links(theta, rows) * _with_pairs(one, squares, pair) + np.diag(rows.doubt + noise)
    )
    return kernel


def _parts(theta: Floats, rows: _Rows) -> tuple[Floats, Floats, float]:
    """(sums, sums of squares, the pairs' factor); the sums are over the variances of what two rows have in common."""
    variances, shared = np.exp(theta[: len(rows.same)]), rows.shared(theta)
    pair = math.exp(theta[len(rows.same)])
    return np.tensordot(variances, shared, 1), np.tensordot(variances**2, _squared(shared, rows), 1), pair


def _squared(shared: Floats, rows: _Rows) -> Floats:
    return shared**2 if rows.numbers else shared  # 0 or 1, which equals its square


def _with_pairs(one: Floats, squares: Floats, pair: float) -> Floats:
    """The variance of main effects and of all pairs, whose sum is (S^2 - sum of squares) / 2."""
    return one + pair * (one**2 - squares) / 2


def _similarities(theta: Floats, count: int, tasks: Ints) -> Floats:
    """The similarity of each task to task 0, which is 1 for task 0 itself."""
    return np.append(1.0, 1 / (1 + np.exp(-theta[count + 2 : count + 2 + int(tasks.max())])))


def _links(theta: Floats, rows: _Rows) -> Floats | float:
    """rows x rows: 1 within a task, otherwise the product of the two tasks' similarities."""
    similarities = _similarities(theta, len(rows.same), rows.tasks)[rows.tasks]
    if not rows.tasks.any():
        return 1.0
    return np.where(rows.tasks[:, None] == rows.tasks, 1.0, np.outer(similarities, similarities))


def _slope(theta: Floats, rows: _Rows) -> Floats:
    """The gradient of the log marginal likelihood, a number per entry of theta."""
    count = len(rows.same)
    variances, noise = np.exp(theta[:count]), math.exp(theta[count + 1])
    inverse = np.linalg.inv(_kernel(theta, rows))
    weights = inverse @ rows.y
    whole = (np.outer(weights, weights) - inverse) / 2
    one, squares, pair = _parts(theta, rows)
    pull = whole * _links(theta, rows)
    shared = rows.shared(theta)
    own, own_squares = np.tensordot(shared, pull, 2), np.tensordot(_squared(shared, rows), pull, 2)
    with_others = np.tensordot(shared, pull * one, 2)
    by_parameter = variances * (own + pair * (with_others - variances * own_squares))
    by_pair = pair * np.sum(pull * (one**2 - squares)) / 2
    by_similarity = _slope_by_similarity(theta, rows, whole * _with_pairs(one, squares, pair))
    by_length = _slope_by_length(theta, rows, pull, one, pair)
    return np.concatenate([by_parameter, [by_pair, noise * np.trace(whole)], by_similarity, by_length])


def _slope_by_length(theta: Floats, rows: _Rows, pull: Floats, one: Floats, pair: float) -> Floats:
    """The gradient by the log length of each number."""
    slopes, first = [], len(theta) - len(rows.numbers)
    for index, (k, places) in enumerate(rows.numbers.items()):
        length, variance = math.exp(theta[first + index]), math.exp(theta[k])
        near = _smooth(places, places, length)
        by_log_length = near * ((places[:, None] - places[None, :]) / length) ** 2
        slopes.append(variance * float(np.sum(pull * by_log_length * (1 + pair * (one - variance * near)))))
    return np.array(slopes)


def _slope_by_similarity(theta: Floats, rows: _Rows, pull: Floats) -> Floats:
    """The gradient by the log odds of each earlier task's similarity."""
    similarities, slopes = _similarities(theta, len(rows.same), rows.tasks), []
    for task in range(1, len(similarities)):
        own = rows.tasks == task
        across = float(np.sum(pull[own][:, ~own] @ similarities[rows.tasks[~own]]))
        slopes.append(2 * across * similarities[task] * (1 - similarities[task]))
    return np.array(slopes)
