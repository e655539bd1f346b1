"""GPU step: a part of the evidence that ends within its limit."""

from collections.abc import Mapping
from dataclasses import dataclass, field

LIMIT_S = 480.0
# How a test says what this card can't do, beside pytest's SKIPPED. A test that is skipped otherwise fails its step.
NOT_POSSIBLE = "not possible on this card: "


@dataclass(frozen=True)
class Step:
    """A part of the evidence that ends within `limit_s` on an H100.

    commands  run in the project's folder, one after the other, until one fails. {work} is the step's own folder, which
              stays until the step has passed; {report} is where the results land
    search_s  how long a search may try configs, over all runs of the step; {search_s} is what is left, at least 1.
              So a step that was cut off in the confirmation comes to an end
    files     name -> text, written into {work} first
    keep      names of files in {work}, with wildcards, that are copied into {report}
    """

    name: str
    shows: str
    commands: tuple[str, ...]
    keep: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    limit_s: float = LIMIT_S
    search_s: float = 0.0
