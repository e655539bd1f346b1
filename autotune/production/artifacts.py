"""Compiled code beside an exported JSON (`best.artifacts`), so that a server's first picture need not wait for it.

torch reads it with pickle, so that whoever wrote the file can run any code in the process that loads it. The hash in
the JSON shows that the file is the one that the JSON speaks of, not that the two are to be trusted. Hence it is
used only where the caller says so (`artifacts=True`), for files from a source that they would run a program from.

The file is a zip: `torch` is what torch.compiler.save_cache_artifacts() gave, graphs and, on a GPU, their kernels. The
kernels that torch compiles for a CPU are not in it (as of torch 2.13): they lie beside it, as in Inductor's cache.
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
MOST_BYTES = 4 * 2**30
GRAPHS = "torch"
KERNELS = "??/*.so"  # in Inductor's cache, see torch/_inductor/codecache.py: get_path


class Artifacts(FrozenModel):
    """Which file, by its plain name in the JSON's folder, and what it must hold."""

    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)]


def run_artifacts_job(job: ArtifactsJob, folder: Path) -> dict[str, Any]:
    """In a child: build the pipe, call it at every size, and keep what torch.compile made in the job's folder."""
    import torch

    from autotune.building import build
    from autotune.production import serving

    target, config, device = job.target, Config(job.values), job.target.device.torch_name
    pipe = build.load(target.pipeline, config, device, local_files_only=True)
    build.apply(pipe, config, target.workload, device)
    pipe.set_progress_bar_config(disable=True)
    serving.warm_up(pipe, target.workload)
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return {"bytes": 0}
    packed = pack(saved[0], Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
    (folder / "artifacts").write_bytes(packed)
    return {"bytes": len(packed)}


def artifacts_of(file: Path) -> Artifacts:
    data = file.read_bytes()
    return Artifacts(file=file.name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def pack(graphs: bytes, cache: Path) -> bytes:
    """The file's content: what torch has saved, and the compiled kernels in this folder of Inductor's."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(GRAPHS, graphs)
        for kernel in sorted(cache.glob(KERNELS)):
            file.write(kernel, kernel.relative_to(cache).as_posix())
    return packed.getvalue()


def unpack(data: bytes, cache: Path) -> bytes:
    """Lay the kernels into Inductor's cache, those that it lacks, and return torch's part.

    Raises UserError for what `pack` has not made; nothing is written then. And for a cache that can't be written.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            graphs, kernels = file.read(GRAPHS), [name for name in file.namelist() if name != GRAPHS]
            for name in kernels:
                _check_kernel(name)
            for name in kernels:
                _lay(file.read(name), cache / name)
    except (zipfile.BadZipFile, KeyError):
        raise UserError(
            "the artifacts are no file of autotune's: make them anew with export --with-artifacts."
        ) from None
    except OSError as error:
        raise UserError(
            f"the artifacts can't be laid into Inductor's cache, {cache}: {error.strerror}. "
            "Set TORCHINDUCTOR_CACHE_DIR to a folder that can be written."
        ) from None
    return graphs


def _check_kernel(name: str) -> None:
    if not PurePosixPath(name).match(KERNELS) or name.count("/") != 1 or ".." in name or "\\" in name:
        raise UserError(f"the artifacts hold {name[:100]!r}, which is no kernel of torch's.")


def _lay(kernel: bytes, path: Path) -> None:
    """Whole or not at all: another process may be about to load it."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_bytes(kernel)
    half.replace(path)


def use(artifacts: Artifacts | None, folder: Path, differences: Sequence[str]) -> bool:
    """Put the compiled code into torch's caches, before anything compiles. Were they used? If not, a word says why.

    differences  in what this machine is not the one that they were made on: any of them, and they are ignored

    Raises UserError where the file is not the one that the JSON speaks of.
    """
    if artifacts is None:
        LOG.warning("artifacts=True, but this config comes without any: it is compiled here.")
        return False
    if differences:
        LOG.warning("its artifacts are ignored, because this is not where they were made: %s", differences[0])
        return False
    import torch
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    loaded = torch.compiler.load_cache_artifacts(unpack(read_checked(artifacts, folder), Path(cache_dir())))
    if loaded is None:
        LOG.warning("torch can't use these artifacts: it is compiled here.")
    return loaded is not None


def read_checked(artifacts: Artifacts, folder: Path) -> bytes:
    """The file's content, its hash checked. Raises UserError."""
    check_file_name(artifacts.file)
    path = folder / artifacts.file
    if path.is_symlink() or not path.is_file():
        raise UserError(f"the artifacts {artifacts.file!r} are not beside the config.")
    if path.stat().st_size != artifacts.bytes:
        raise UserError(f"the artifacts {artifacts.file!r} are not those of the config: another size.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != artifacts.sha256:
        raise UserError(f"the artifacts {artifacts.file!r} are not those of the config: another SHA-256.")
    return data
