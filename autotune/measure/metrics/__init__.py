"""Metrics: one file for each metric of pictures. `autotune score` finds them by listing this folder.

A metric's module imports torch inside its functions only, because the parent process lists the metrics without torch.
Each score is stored with its identity (model, revision, digest of the weights). Scores of different identities are
never compared.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal, Protocol

from autotune.errors import UserError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

Better = Literal["higher", "lower"]
Score = float | None  # None: the picture equals its reference, and the metric has no number for that
Images = Sequence["Image"]


def mean(scores: Sequence[Score]) -> Score:
    """The mean of the frames' scores; None: no frame has one."""
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if known else None


def largest(scores: Sequence[Score]) -> Score:
    """The largest of the frames' scores; None: no frame has one."""
    return max((score for score in scores if score is not None), default=None)


class Loaded(Protocol):
    """A metric whose model is loaded."""

    @property
    def identity(self) -> str:
        """Which model or formula scores: its name and version, and the digest of its weights."""
        ...

    def scores(self, images: Images, prompts: Sequence[str], references: Images) -> tuple[Score, ...]:
        """One score for each picture. Raises UserError for a prompt or a picture that this metric can't judge."""
        ...


@dataclass(frozen=True)
class Metric:
    """A metric by its name.

    load             load(source, device) loads the model. `source`: a hub id, a folder or None, for the metric's
                     default model. `device`: torch's name of one. May raise UserError
    needs_reference  compares each picture with its reference, or with the baseline's picture where there is none
    takes_model      the user may name the source of its model
    reads_scorer     without a source, the model is the study's scorer
    every_frame      judges every frame of a clip; otherwise some that are spread over it
    of_clip          the score of a clip from those of its frames
    clips_only       judges the motion of a clip, which pictures don't have
    """

    name: str
    summary: str
    better: Better
    unit: str
    load: Callable[[str | None, str], Loaded]
    needs_reference: bool = False
    takes_model: bool = False
    reads_scorer: bool = False
    every_frame: bool = False
    of_clip: Callable[[Sequence[Score]], Score] = mean
    clips_only: bool = False


@dataclass(frozen=True)
class Judge:
    """A Loaded metric that calls a function."""

    identity: str
    function: Callable[[Images, Sequence[str], Images], Sequence[Score]]

    def scores(self, images: Images, prompts: Sequence[str], references: Images) -> tuple[Score, ...]:
        return tuple(self.function(images, prompts, references))


@cache
def all_metrics() -> Mapping[str, Metric]:
    """Every metric by name."""
    found = [import_module(f"{__name__}.{m.name}").METRIC for m in iter_modules(__path__) if m.name[0] != "_"]
    return {metric.name: metric for metric in sorted(found, key=lambda metric: metric.name)}


def find_metric(name: str) -> Metric:
    """The metric of this name. Raises UserError that suggests the nearest name."""
    if name not in all_metrics():
        raise UserError(f"unknown metric {name!r}: {nearest(name, all_metrics())}")
    return all_metrics()[name]
