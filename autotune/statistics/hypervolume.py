"""Hypervolume: the part of the unit box that points dominate, with all objectives minimised."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def volume(points: Sequence[Sequence[float]] | NDArray[np.float64]) -> float:
    """The volume between the points (points x objectives) and the corner (1, 1 ...). Points outside the box add none.

    It is exact, by slices along the last objective.
    """
    box = np.asarray(points, dtype=float)
    if box.size == 0:
        return 0.0
    box = box[(box < 1).all(axis=1)]
    return _volume(box[np.argsort(box[:, 0], kind="stable")])


def _volume(box: NDArray[np.float64]) -> float:
    """Of points in the order of their first objective."""
    if len(box) == 0:
        return 0.0
    if box.shape[1] == 1:
        return float(1 - box[0, 0])
    if box.shape[1] == 2:
        widths = np.diff(box[:, 0], append=1.0)
        return float(widths @ (1 - np.minimum.accumulate(box[:, 1])))
    levels = np.unique(box[:, -1])
    depths = np.diff(levels, append=1.0)
    slices = (_volume(box[box[:, -1] <= level][:, :-1]) for level in levels)
    return float(sum(depth * area for depth, area in zip(depths, slices, strict=True)))
