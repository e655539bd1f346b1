"""The verdicts on disk: for each tiny pipeline every value alone and every pair, in an order that two files share."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from autotune.device import Device
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, read_json, write_json
from autotune.trial import Cause, Failure

SCHEMA_VERSION = 1
Outcome = Literal["fine", "failed", "impossible", "refused", "skipped", "not run"]


class Made(FrozenModel):
    """What became of one config in its fork: pictures, or a failure."""

    failure: Failure | None = None
    seconds: float = 0.0
    repeat_difference: float = 0.0  # of the same call's pictures, made again
    rounded: bool = False  # coarser formats than float32 were at work
    nudge_difference: float = 0.0  # largest of any pixel, where every weight is off by a millionth
    given_up: int = 0  # functions that torch.compile runs uncompiled after all


class Verdict(FrozenModel):
    """On one value, or one pair."""

    outcome: Outcome
    cause: Cause | Literal["differs"] | None = None
    reason: str | None = None
    difference: float | None = None  # largest of any pixel, from 0 to 1; None where there is nothing to compare with
    seconds: float | None = None
    challenged: "Verdict | None" = None  # of a refused pair: what happens where it is run all the same


class PipelineVerdicts(FrozenModel):
    class_name: str
    workload: str
    singles: dict[str, Verdict] = Field(default_factory=dict)  # "knob=value" -> verdict
    pairs: dict[str, Verdict] = Field(default_factory=dict)  # "knob=value + knob=value" -> verdict

    def counts(self) -> Counter[str]:
        return Counter(verdict.outcome for verdict in self.pairs.values())


class CompatRecord(FrozenModel):
    schema_version: int = SCHEMA_VERSION
    created: str
    command: str
    device: dict[str, Any]
    versions: dict[str, str]
    pipelines: dict[str, PipelineVerdicts] = Field(default_factory=dict)

    def difference(self, other: "CompatRecord") -> str | None:
        """The first thing in which two runs differ, in words; None where one continues the other."""
        for what in ("device", "versions"):
            mine, theirs = getattr(self, what), getattr(other, what)
            for key in sorted({*mine, *theirs}):
                if mine.get(key) != theirs.get(key):
                    return f"{what}: {key} {mine.get(key)}, not {theirs.get(key)}"
        return None

    def having(self, name: str, verdicts: PipelineVerdicts) -> "CompatRecord":
        """With the verdicts on this pipeline."""
        return self.model_copy(update={"pipelines": {**self.pipelines, name: verdicts}})


def describe_device(device: Device) -> dict[str, Any]:
    """What decides which settings work on it."""
    said = {"kind": device.kind, "name": device.name, "driver": device.driver}
    capability = device.compute_capability and ".".join(map(str, device.compute_capability))
    return {key: value for key, value in {**said, "compute_capability": capability}.items() if value}


def read_record(path: Path) -> CompatRecord:
    """Raises UserError."""
    data = read_json(path, "record of compatibility")
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{str(path)!r} has the schema version {version}, this autotune reads {SCHEMA_VERSION}.")
    return CompatRecord.parse(data, repr(str(path)))


def write_record(path: Path, record: CompatRecord) -> None:
    """Whole or not at all. Sorted, and rounded to what two runs share, so that two files can be compared by `diff`."""
    ordered = {
        name: p.model_copy(update={"singles": _sorted(p.singles), "pairs": _sorted(p.pairs)})
        for name, p in sorted(record.pipelines.items())
    }
    whole = record.model_copy(update={"pipelines": ordered})
    try:
        write_json(path, whole.model_dump(mode="json", exclude_none=True))
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be written: {error.strerror or error}.") from None


def _sorted(verdicts: dict[str, Verdict]) -> dict[str, Verdict]:
    return {key: verdicts[key] for key in sorted(verdicts)}
