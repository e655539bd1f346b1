"""Target: what is tuned (Pipeline), for whom (Workload), where (Device). Studies of different targets never mix."""

from autotune.device import Device
from autotune.frozen_model import FrozenModel
from autotune.pipeline import Pipeline
from autotune.workload import Workload


class Target(FrozenModel):
    pipeline: Pipeline
    workload: Workload
    device: Device
    versions: dict[str, str]  # of Python and the libraries that make the pictures

    def difference(self, other: "Target") -> str | None:
        """The first thing in which two targets differ, in words; None where they are the same."""
        for what in ("pipeline", "workload", "device", "versions"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if what == "versions":
                changed = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
            else:
                changed = [k for k, v in mine.model_dump().items() if v != theirs.model_dump()[k]]
            if changed and changed != ["evidence"]:
                key = next(k for k in changed if k != "evidence")
                values = [x.get(key) if what == "versions" else getattr(x, key) for x in (mine, theirs)]
                return f"{what}: {key} {_short(values[0])}, not {_short(values[1])}"
        return None


def _short(value: object) -> str:
    nouns = isinstance(value, tuple) and all(isinstance(part, FrozenModel) for part in value)
    text = " and ".join(map(str, value)) or "none" if isinstance(value, tuple) and nouns else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
