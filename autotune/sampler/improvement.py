"""The hypervolume that a config is expected to add to a front, exactly, for independent normal predictions.

The space below the corner is cut into cells at the front's coordinates. In the cells that the front does not cover, the
volume that a point y adds is the product over the objectives of (u - max(l, y))+, whose mean is known in closed form.
"""

import math
from typing import Any

import numpy as np

Array = Any

MOST_CELLS = 20_000  # a front whose cells are more is thinned


def expected_improvement(mean: Array, deviation: Array, front: Array, corner: Array) -> Array:
    """Of each row of mean and deviation (a column an objective, all minimised), the volume it is expected to add.

    front   the points to improve on, within the corner; may be empty
    corner  what is worse than it in anything adds nothing
    """
    front = _thinned(front)
    dimensions = len(corner)
    edges = [np.append(np.unique(front[:, d]), corner[d]) for d in range(dimensions)]
    free = np.ones([len(e) for e in edges], dtype=bool)
    lower = np.meshgrid(*(np.insert(e[:-1], 0, -np.inf) for e in edges), indexing="ij")
    for point in front:
        free &= ~np.logical_and.reduce([low >= x for low, x in zip(lower, point, strict=True)])
    total = free.astype(float)
    for d in reversed(range(dimensions)):
        gains = _gains(mean[:, d], deviation[:, d], edges[d])
        total = _contract(total, gains, last=d == dimensions - 1)
    return total


def _contract(total: Array, gains: Array, *, last: bool) -> Array:
    """Sum the last objective's cells out. The configs are the first axis after the first time."""
    if last:
        return np.moveaxis(np.tensordot(total, gains, axes=([-1], [1])), -1, 0)
    return np.einsum("n...k,nk->n...", total, gains)


def _gains(mean: Array, deviation: Array, edges: Array) -> Array:
    """E[(u - max(l, Y))+] for every cell l..u between the edges, the first one open below."""
    z = (edges[None, :] - mean[:, None]) / deviation[:, None]
    below = 0.5 * (1 + _erf(z / math.sqrt(2)))
    up_to = deviation[:, None] * (z * below + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
    return np.maximum(np.diff(np.maximum(up_to, 0.0), axis=1, prepend=0.0), 0.0)


def probability_below(mean: Array, deviation: Array, limit: float) -> Array:
    """That a normal value is at most the limit."""
    return 0.5 * (1 + _erf((limit - mean) / deviation / math.sqrt(2)))


def _erf(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26, to 1.5e-7: numpy has none."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-(x**2)))


def _thinned(front: Array) -> Array:
    """At most so many points that the cells stay few, evenly along the first objective."""
    dimensions = front.shape[1]
    most = max(2, int(MOST_CELLS ** (1 / dimensions)) - 1)
    if len(front) <= most:
        return front
    order = np.argsort(front[:, 0], kind="stable")
    return front[order[np.linspace(0, len(front) - 1, most).round().astype(int)]]
