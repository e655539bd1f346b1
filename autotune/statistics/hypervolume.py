"""Hypervolume: how much of the unit box a set of points leaves behind, all objectives to be minimised."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def volume(points: Sequence[Sequence[float]] | Any) -> float:
    """The volume between these points and the corner (1, 1 ...). Exact, by slices along the last objective."""
    box = np.asarray(points, dtype=float)
    if box.size == 0:
        return 0.0
    box = box[(box < 1).all(axis=1)]
    return _volume(box[np.argsort(box[:, 0], kind="stable")])


def _volume(box: Any) -> float:
    """Of points ordered by their first objective."""
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
