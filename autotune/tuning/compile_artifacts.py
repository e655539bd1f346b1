"""save_with_artifacts(): compile an exported config in a child process; save the code beside its JSON.

`autotune export --with-artifacts` calls it. It must run on the machine that will load the code: torch's caches depend
on the device, the versions of the libraries and every flag.
"""

import os
from pathlib import Path

from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.scratch import scratch
from autotune.job import ArtifactsJob
from autotune.production.artifacts import Artifacts, artifacts_of
from autotune.production.fingerprint import find_place
from autotune.production.tuned_config import TunedConfig
from autotune.target import Target
from autotune.trial import Failure

TIMEOUT_S = 4 * 3600.0


def save_with_artifacts(tuned: TunedConfig, path: Path) -> None:
    """Write the JSON at `path` and its compiled code beside it (best.json, best.artifacts).

    Raises UserError where the config compiles nothing, was measured elsewhere, or can't be compiled or written.
    """
    if tuned.config["compile"] in ("off", "trace"):
        raise UserError("this config compiles nothing, so there are no artifacts: leave out --with-artifacts.")
    place = find_place(tuned.target, tuned.config, files=False)
    if place.differences:
        raise UserError(f"artifacts must be made where the config was measured: {place.differences[0]}")
    artifacts = compile_artifacts(tuned, tuned.target.on_card(place.device), path.with_suffix(".artifacts"))
    tuned.model_copy(update={"artifacts": artifacts}).save(path)


def compile_artifacts(tuned: TunedConfig, target: Target, file: Path) -> Artifacts:
    """Compile for this target in a child process and write the compiled code to `file`.

    The child's caches are empty at first, so that the file holds the code of this config alone. Raises UserError.
    """
    with scratch("autotune-artifacts-") as temporary:
        folder = Path(temporary)
        job = ArtifactsJob(target=target, values=dict(tuned.config))
        env = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        answer = isolate.run(folder / "job", job, timeout_s=TIMEOUT_S, env=env)
        if isinstance(answer, Failure):
            raise UserError(f"the config can't be compiled here ({answer.cause}): {answer.reason}.")
        if not answer["bytes"]:
            raise UserError("torch.compile left no code in its caches, so there is nothing to save.")
        temporary_file = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            temporary_file.write_bytes((folder / "job" / "artifacts").read_bytes())
            temporary_file.replace(file)
        except OSError as error:
            raise UserError(f"{str(file)!r} can't be written: {error.strerror}.") from None
    return artifacts_of(file)
