"""Compile an exported config in a fresh process and keep what was compiled beside its JSON: `export --with-artifacts`.

It must be made where it will be used: torch's caches know the device, the versions and every flag.
"""

import os
import tempfile
from pathlib import Path

from autotune.errors import UserError
from autotune.execution import isolate
from autotune.job import ArtifactsJob
from autotune.production.artifacts import Artifacts, artifacts_of
from autotune.production.fingerprint import find_place
from autotune.production.tuned_config import TunedConfig
from autotune.trial import Failure

TIMEOUT_S = 4 * 3600.0


def save_with_artifacts(tuned: TunedConfig, path: Path) -> None:
    """Write the JSON at `path` and its compiled code beside it (best.json, best.artifacts). Raises UserError."""
    if tuned.config["compile"] in ("off", "trace"):
        raise UserError("this config compiles nothing, so that there are no artifacts: leave --with-artifacts away.")
    place = find_place(tuned.target, tuned.config, files=False)
    if place.differences:
        raise UserError(f"artifacts must be made where the config was measured: {place.differences[0]}")
    kept = make(tuned, path.with_suffix(".artifacts"))
    tuned.model_copy(update={"artifacts": kept}).save(path)


def make(tuned: TunedConfig, file: Path) -> Artifacts:
    """Compile in a child with empty caches, so that nothing of other configs gets in. Raises UserError."""
    with tempfile.TemporaryDirectory(prefix="autotune-artifacts-") as temporary:
        folder = Path(temporary)
        job = ArtifactsJob(target=tuned.target, values=dict(tuned.config))
        env = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        answer = isolate.run(folder / "job", job, timeout_s=TIMEOUT_S, env=env)
        if isinstance(answer, Failure):
            raise UserError(f"it can't be compiled here ({answer.cause}): {answer.reason}.")
        if not answer["bytes"]:
            raise UserError("torch.compile has left nothing that could be kept.")
        half = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            half.write_bytes((folder / "job" / "artifacts").read_bytes())
            half.replace(file)
        except OSError as error:
            raise UserError(f"{str(file)!r} can't be written: {error.strerror}.") from None
    return artifacts_of(file)
