"""Artifacts: the compiled code beside an exported JSON (`best.artifacts`), so that a server need not compile.

torch reads the file with pickle: whoever wrote it can run any code in the process that loads it. The hash in the JSON
shows that the file belongs to the JSON, not that either can be trusted. The file is therefore used only with
`artifacts=True`, which is meant for files from a source whose programs the caller would run.

The file is a zip archive. Its entry `torch` holds the output of torch.compiler.save_cache_artifacts(): graphs and, on a
GPU, their kernels. As of torch 2.13 that output lacks the kernels for a CPU: these are further entries, under the paths
that they have in Inductor's cache.
"""

import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from autotune.config import Config
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel
from autotune.job import ArtifactsJob
from autotune.production.untrusted_input import check_file_name

LOG = logging.getLogger("autotune")
MOST_BYTES = 4 * 2**30  # of the file, and of all that it unpacks to (zipfile reads no more than an entry declares)
MOST_ENTRIES = 100_000
GRAPHS = "torch"  # the entry of the archive
KERNELS = "??/*.so"  # paths in Inductor's cache, see torch/_inductor/codecache.py: get_path


class Artifacts(FrozenModel):
    """The file: its plain name in the folder of the JSON, its hash and its size."""

    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)]


def run_artifacts_job(job: ArtifactsJob, folder: Path) -> dict[str, Any]:
    """In a child process: build the pipe, call it at every size, and write the compiled code to `folder`/artifacts.

    The result is the number of bytes, 0 where torch.compile left nothing in its caches.
    """
    import torch

    from autotune.building import build
    from autotune.production import serving

    target, config, device = job.target, Config(job.values), job.target.device.torch_name
    pipe = build.load(target.pipeline, config, device, local_files_only=True)
    build.apply(pipe, config, target.workload, device, calibrations=target.calibrations)
    pipe.set_progress_bar_config(disable=True)
    serving.warm_up(pipe, target.workload)
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return {"bytes": 0}
    packed = pack(saved[0], Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
    (folder / "artifacts").write_bytes(packed)
    return {"bytes": len(packed)}


def artifacts_of(file: Path) -> Artifacts:
    """The entry of the JSON that describes this file."""
    data = file.read_bytes()
    return Artifacts(file=file.name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def pack(graphs: bytes, cache: Path) -> bytes:
    """The content of the file: the output of torch, and the compiled kernels in Inductor's cache folder."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(GRAPHS, graphs)
        for kernel in sorted(cache.glob(KERNELS)):
            file.write(kernel, kernel.relative_to(cache).as_posix())
    return packed.getvalue()


def unpack(data: bytes, cache: Path) -> bytes:
    """Copy the kernels into Inductor's cache, except those that it has, and return the entry of torch.

    Raises UserError where `pack` did not make the data (then nothing is written), and where the cache can't be written.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise UserError(f"the artifacts unpack to more than {MOST_BYTES} bytes or {MOST_ENTRIES} files.")
            graphs, kernels = file.read(GRAPHS), [name for name in file.namelist() if name != GRAPHS]
            for name in kernels:
                _check_kernel(name)
            for name in kernels:
                _write_kernel(file.read(name), cache / name)
    except (zipfile.BadZipFile, KeyError):
        raise UserError(
            "the artifacts were not written by autotune: make them again with export --with-artifacts."
        ) from None
    except OSError as error:
        raise UserError(
            f"the artifacts can't be copied into Inductor's cache, {cache}: {error.strerror}. "
            "Set TORCHINDUCTOR_CACHE_DIR to a folder that can be written."
        ) from None
    return graphs


def _check_kernel(name: str) -> None:
    if not PurePosixPath(name).match(KERNELS) or name.count("/") != 1 or ".." in name or "\\" in name:
        raise UserError(f"the artifacts contain {name[:100]!r}, which is not a kernel of torch.")


def _write_kernel(kernel: bytes, path: Path) -> None:
    """Write whole or not at all, because another process may load the file at any time. An existing file is kept."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(kernel)
    temporary.replace(path)


def use(artifacts: Artifacts | None, folder: Path, differences: Sequence[str]) -> bool:
    """Put the compiled code into torch's caches, before anything compiles. Returns whether torch accepted it.

    Where the code is not used, a warning says why.

    artifacts    of the JSON; None: it has none
    folder       the folder of the JSON
    differences  how this machine differs from the one that compiled the code; where there is any, the code is ignored

    Raises UserError where the file is missing, or is not the one that the JSON describes.
    """
    if artifacts is None:
        LOG.warning("artifacts=True, but this config has no artifacts: it is compiled here.")
        return False
    if differences:
        LOG.warning("the artifacts are ignored, because something has changed since they were made: %s", differences[0])
        return False
    import torch
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    loaded = torch.compiler.load_cache_artifacts(unpack(read_checked(artifacts, folder), Path(cache_dir())))
    if loaded is None:
        LOG.warning("torch can't use these artifacts: the config is compiled here.")
    return loaded is not None


def read_checked(artifacts: Artifacts, folder: Path) -> bytes:
    """The content of the file. Raises UserError where the file is missing, or its size or hash differs."""
    check_file_name(artifacts.file)
    path = folder / artifacts.file
    if path.is_symlink() or not path.is_file():
        raise UserError(f"the artifacts {artifacts.file!r} are not in the folder of the config.")
    if path.stat().st_size != artifacts.bytes:
        raise UserError(f"the artifacts {artifacts.file!r} are not those of the config: another size.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != artifacts.sha256:
        raise UserError(f"the artifacts {artifacts.file!r} are not those of the config: another SHA-256.")
    return data
