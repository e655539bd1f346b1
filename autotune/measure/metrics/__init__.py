"""The metrics: one file each in this folder, which `autotune score` finds by listing it.

A metric's module may import torch inside its functions only: the parent lists metrics without it. Every score is told
with the identity of what gave it (model, revision, digest of the weights); scores of two identities are never compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Literal, Protocol

from autotune.errors import UserError, nearest

Better = Literal["higher", "lower"]
Score = float | None  # None: bit for bit the reference, where the metric has no number for that
Images = Sequence[Any]  # PIL pictures


class Loaded(Protocol):
    """A metric that is ready to score."""

    @property
    def identity(self) -> str: ...

    def scores(self, images: Images, prompts: Sequence[str], references: Images) -> tuple[Score, ...]:
        """One for each picture. Raises UserError for a prompt or a picture that this metric can't judge."""
        ...


@dataclass(frozen=True)
class Metric:
    """What a metric is. `load` takes the model's source (None: its own) and the device, and may raise UserError."""

    name: str
    summary: str
    better: Better
    unit: str
    load: Callable[[str | None, str], Loaded]
    needs_reference: bool = False  # compares with the reference picture, or the baseline's where there is none
    takes_model: bool = False  # the source of its model can be named
    reads_scorer: bool = False  # ... and is the study's own scorer where none is


@dataclass(frozen=True)
class Judge:
    """A Loaded whose scores are a function's."""

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
    """The metric of this name; raises UserError with the nearest name."""
    if name not in all_metrics():
        raise UserError(f"unknown metric {name!r}: {nearest(name, all_metrics())}")
    return all_metrics()[name]
