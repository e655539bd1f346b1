"""GPU step: a part of the evidence that ends within its limit."""

from collections.abc import Mapping
from dataclasses import dataclass, field

LIMIT_S = 480.0


@dataclass(frozen=True)
class Step:
    """A part of the evidence that ends within `limit_s` on an H100.

    commands  run in the project's folder, one after the other, until one fails. {work} is the step's own folder, which
              stays until the step has passed; {report} is where the results land
    files     name -> text, written into {work} first
    keep      names of files in {work}, with wildcards, that are copied into {report}
    """

    name: str
    shows: str
    commands: tuple[str, ...]
    keep: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    limit_s: float = LIMIT_S
