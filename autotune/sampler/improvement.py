"""Expected improvement: the hypervolume that a config is expected to add to a front.

It is exact for independent normal predictions. The space below the corner is cut into cells at the front's coordinates.
In the cells that the front does not cover, the volume that a point y adds is the product over the objectives of
(u - max(l, y))+, for a cell from l to u. Its mean has a closed form.
"""

import math

import numpy as np

from autotune.sampler.arrays import Floats

MOST_CELLS = 20_000  # a front that makes more cells is thinned


def expected_improvement(mean: Floats, deviation: Floats, front: Floats, corner: Floats) -> Floats:
    """The volume that each config is expected to add. All objectives are minimised.

    mean, deviation  configs x objectives
    front            points x objectives, within the corner; may be empty
    corner           a value per objective: points that are worse in any of them add nothing
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
        total = _contract(total, gains, is_first=d == dimensions - 1)
    return total


def _contract(total: Floats, gains: Floats, *, is_first: bool) -> Floats:
    """Sum over the cells of the last remaining objective. After the first call, the configs are the first axis."""
    if is_first:
        return np.moveaxis(np.tensordot(total, gains, axes=([-1], [1])), -1, 0)
    summed: Floats = np.einsum("n...k,nk->n...", total, gains)
    return summed


def _gains(mean: Floats, deviation: Floats, edges: Floats) -> Floats:
    """configs x cells: E[(u - max(l, Y))+] for the cells l..u between the edges. The first cell is open below."""
    z = (edges[None, :] - mean[:, None]) / deviation[:, None]
    below = 0.5 * (1 + _erf(z / math.sqrt(2)))
    up_to = deviation[:, None] * (z * below + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
    gains: Floats = np.maximum(np.diff(np.maximum(up_to, 0.0), axis=1, prepend=0.0), 0.0)
    return gains


def probability_below(mean: Floats, deviation: Floats, limit: float) -> Floats:
    """The probability that each normal value is at most the limit."""
    probability: Floats = 0.5 * (1 + _erf((limit - mean) / deviation / math.sqrt(2)))
    return probability


def _erf(x: Floats) -> Floats:
    """The error function, right to 1.5e-7 (Abramowitz and Stegun 7.1.26); numpy has none."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf: Floats = np.sign(x) * (1 - series * np.exp(-(x**2)))
    return erf


def _thinned(front: Floats) -> Floats:
    """Few enough points to stay within MOST_CELLS, spread evenly along the first objective."""
    dimensions = front.shape[1]
    most = max(2, int(MOST_CELLS ** (1 / dimensions)) - 1)
    if len(front) <= most:
        return front
    order = np.argsort(front[:, 0], kind="stable")
    thinned: Floats = front[order[np.linspace(0, len(front) - 1, most).round().astype(int)]]
    return thinned
