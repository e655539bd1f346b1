"""CompatRecord: the verdicts as a JSON file, sorted, so that two files can be compared with `diff`."""

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
    """The outcome of one config in its fork: pictures, or a failure. Differences are of pixels from 0 to 1.

    repeat_difference  the largest difference between the pictures of repeated calls
    rounded            did the pipe compute in a coarser format than float32?
    nudge_difference   the largest difference after a relative change of 1e-6 to every weight
    given_up           functions that torch.compile gave up on and runs uncompiled
    unordered          an operation of the call that torch says has no deterministic implementation on this device, as
                       sums by atomics; None: none, or repeated calls agree
    """

    failure: Failure | None = None
    seconds: float = 0.0
    repeat_difference: float = 0.0
    rounded: bool = False
    nudge_difference: float = 0.0
    given_up: int = 0
    unordered: str | None = None


class Verdict(FrozenModel):
    """The verdict on one value or one pair."""

    outcome: Outcome
    cause: Cause | Literal["differs"] | None = None
    reason: str | None = None
    difference: float | None = None  # the largest of any pixel, from 0 to 1; None: the config is its own reference
    seconds: float | None = None
    among: int | None = None  # values of the config in which the pair was tried; None: in one of its own
    challenged: "Verdict | None" = None  # the verdict on a refused pair that was run nevertheless


class PipelineVerdicts(FrozenModel):
    """The verdicts on one tiny pipeline."""

    class_name: str
    workload: str
    singles: dict[str, Verdict] = Field(default_factory=dict)  # "knob=value" -> verdict
    pairs: dict[str, Verdict] = Field(default_factory=dict)  # "knob=value + knob=value" -> verdict

    def counts(self) -> Counter[str]:
        """Outcome -> number of pairs."""
        return Counter(verdict.outcome for verdict in self.pairs.values())


class CompatRecord(FrozenModel):
    """The content of compat-DEVICE.json.

    captured  graphs were run as torch.compile captured them: what the compiler makes of them was not tried
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    command: str
    captured: bool = False
    device: dict[str, Any]
    versions: dict[str, str]
    pipelines: dict[str, PipelineVerdicts] = Field(default_factory=dict)

    def difference(self, other: "CompatRecord") -> str | None:
        """The first difference between two runs, in words; None where one continues the other."""
        for what in ("device", "versions"):
            own, others = getattr(self, what), getattr(other, what)
            for key in sorted({*own, *others}):
                if own.get(key) != others.get(key):
                    return f"{what}: {key} {own.get(key)}, not {others.get(key)}"
        if self.captured != other.captured:
            return f"graphs {'captured alone' if self.captured else 'compiled'}"
        return None

    def having(self, name: str, verdicts: PipelineVerdicts) -> "CompatRecord":
        """The record with these verdicts on a pipeline."""
        return self.model_copy(update={"pipelines": {**self.pipelines, name: verdicts}})


def describe_device(device: Device) -> dict[str, Any]:
    """The properties of a device that decide which settings work on it."""
    capability = device.compute_capability and ".".join(map(str, device.compute_capability))
    properties = {"kind": device.kind, "name": device.name, "driver": device.driver, "compute_capability": capability}
    return {key: value for key, value in properties.items() if value}


def read_record(path: Path) -> CompatRecord:
    """Read a file of verdicts. Raises UserError where it is something else, or of another schema version."""
    data = read_json(path, "record of compatibility")
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{str(path)!r} has the schema version {version}, this autotune reads {SCHEMA_VERSION}.")
    return CompatRecord.parse(data, repr(str(path)))


def write_record(path: Path, record: CompatRecord) -> None:
    """Write the record, sorted, whole or not at all. Raises UserError where it can't be written."""
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
