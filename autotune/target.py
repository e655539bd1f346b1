"""Target: what is tuned (Pipeline), for which calls (Workload), on which Device, with which library versions."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from autotune.device import Device
from autotune.frozen_model import FrozenModel, same_place
from autotune.pipeline import Pipeline, Traits, same_files
from autotune.workload import Workload

MODELS = ("class_name", "denoiser_class", "vae_class", "linear_shapes")  # the traits that say which models these are
CANT_BE_IMPORTED = "can't be imported"  # begins what stands for the version of such a package
Calibrations = dict[str, tuple[Annotated[float, Field(allow_inf_nan=False)], ...]]  # as Knob.calibration names them
FEW_STEPS = 9  # what distilled checkpoints take at most (Z-Image-Turbo); others take 20 and more


class Target(FrozenModel):
    """What a study measures. Measurements of different targets are never compared.

    versions     of Python and of the libraries that make the pictures: name -> version
    environment  variables that these libraries read: name -> value; None: a study of an earlier version
    notes        sentences about the prompts: what the pipeline does not read of them, which the scorer can't read
    calibrations what an earlier process has measured for knobs before its first call, so that this one need not
    """

    pipeline: Pipeline
    workload: Workload
    device: Device
    versions: dict[str, str]
    environment: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    calibrations: Calibrations = Field(default_factory=dict)

    @property
    def steps_run(self) -> int:
        """How many of the workload's steps run: a call that starts from a picture may leave out the first ones."""
        return self.steps_run_of(self.workload.steps)

    def steps_run_of(self, steps: int) -> int:
        """The same of a call with this number of steps, at the workload's strength."""
        return self.pipeline.known.steps_that_run(steps, self.strength)

    def with_steps(self, steps: int) -> "Target":
        """This target with another number of steps a call."""
        return self.model_copy(update={"workload": self.workload.model_copy(update={"steps": steps})})

    @property
    def strength(self) -> float | None:
        """How much of the starting picture is drawn anew; None: the call's default."""
        strength = self.workload.strength
        given = self.workload.call.get("strength") if strength is None else strength  # as earlier versions took it
        return given if isinstance(given, int | float) else None

    @property
    def calls(self) -> str:
        """The workload in words."""
        return self.workload.words(self.steps_run if self.pipeline.traits is not None else None)

    @property
    def doubt(self) -> str | None:
        """A sentence where the workload is not how such a checkpoint is called; None: nothing is known against it."""
        workload, traits = self.workload, self.pipeline.traits
        if traits is None or traits.guidance_argument is None:
            return None
        steps = f"{workload.steps} step{'s' if workload.steps > 1 else ''}"
        if traits.guidance_fault is not None:
            few = f": {steps} may be more than it needs (--steps 4)" if workload.steps > FEW_STEPS else ""
            return f"{traits.guidance_fault}, and guidance does not act{few}."
        scale, above = workload.guidance_scale, traits.guided_above
        if scale is None or above is None or scale <= max(above, 2.0) or workload.steps > FEW_STEPS:
            return None
        return f"{steps} at guidance {scale:g}: turbo and lightning checkpoints are called with --guidance 0."

    def lacks(self, package: str) -> str | None:
        """Why what this package does is not available, as a clause; None: it is installed, or it is not known."""
        version = self.versions.get(package, "")
        if version.startswith(CANT_BE_IMPORTED):
            return f"the package {package} {version}"
        known = "diffusers" in self.versions  # part of every list of the installed packages
        missing = known and package not in self.versions
        return f"the package {package} is not installed: pip install {package}" if missing else None

    @property
    def denoiser_is_quantized(self) -> str | None:
        """Why the denoiser's layers can't be replaced, where the checkpoint has quantized them, as a clause."""
        known = self.pipeline.known
        name = next((name for name in known.denoisers if name in known.quantized), None)
        return None if name is None else f"the checkpoint's {name} is quantized already ({known.quantized[name]})"

    def on_card(self, device: Device) -> "Target":
        """This target on another device of the same model: it changes only which of them it is."""
        own = self.device.model_copy(update={"index": device.index, "uuid": device.uuid})
        return self.model_copy(update={"device": own})

    def as_begun(self, begun: "Target") -> "Target":
        """This target, with what the first probe of a study has timed: another might answer otherwise."""
        slow = {"bfloat16_fault": begun.device.bfloat16_fault}
        return self.model_copy(update={"device": self.device.model_copy(update=slow)})

    def difference(self, other: "Target") -> str | None:
        """The first difference between two targets, such as "workload: steps 20, not 30"; None: they are the same.

        The evidence of a device and what torch and diffusers answered of it may differ, and the number under
        which the same GPU is found. Studies of earlier versions don't know their GPU's UUID.
        """
        known = None not in (self.device.uuid, other.device.uuid)
        answers = {"sdpa_heads", "attention", "bfloat16_fault", "shared_int8_fault"}
        ignored = {"evidence", *answers, "index" if known else "uuid"}
        for part in ("pipeline", "workload", "device", "versions", "environment"):
            if getattr(self, part) is None or getattr(other, part) is None:
                continue
            own, others = _compared(getattr(self, part)), _compared(getattr(other, part))
            for name in sorted(own.keys() | others.keys()) if part in ("versions", "environment") else own:
                if (
                    name not in ignored
                    and own.get(name) != others.get(name)
                    and not _same(own.get(name), others.get(name))
                ):
                    return f"{part}: {name} {_short(own.get(name))}, not {_short(others.get(name))}"
        return None


def _compared(part: Mapping[str, object] | FrozenModel) -> dict[str, object]:
    """The fields that are compared. Of traits those that say which models these are: a later version reads off more."""
    fields = dict(part)
    traits = fields.get("traits")
    if isinstance(traits, Traits):
        fields["traits"] = " ".join(f"{getattr(traits, name)}" for name in MODELS)
    return fields


def _same(recorded: object, current: object) -> bool:
    """Are two unequal values revisions, or revisions by part, of the same files, or paths of the same place?"""
    if isinstance(recorded, dict) and isinstance(current, dict):
        return recorded.keys() == current.keys() and all(_same(recorded[n], current[n]) for n in recorded)
    if not (isinstance(recorded, str) and isinstance(current, str)):
        return False
    return same_files(recorded, current) or same_place(recorded, current)


def _short(value: object) -> str:
    """The value as text, of at most 60 characters."""
    models = isinstance(value, tuple) and all(isinstance(part, FrozenModel) for part in value)
    text = " and ".join(map(str, value)) or "none" if isinstance(value, tuple) and models else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
