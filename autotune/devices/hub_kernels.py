"""Hub kernels: attention kernels that diffusers downloads as code from the hub. Only where the user allows it.

A kernel is a program: whoever can write to its repository can run anything here. So nothing is downloaded or imported
unless AUTOTUNE_HUB_KERNELS=accept is set. Publishers that the hub does not call trusted need diffusers' own
DIFFUSERS_TRUST_REMOTE_KERNELS=true as well, which autotune never sets. Never run on a GPU.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.errors import UserError

VARIABLE, ACCEPT = "AUTOTUNE_HUB_KERNELS", "accept"
NOT_ALLOWED = f"runs code that is downloaded from the hub, which only you can allow ({VARIABLE}={ACCEPT})"


def allowed() -> bool:
    """Does the user allow code of the hub to run as an attention kernel?"""
    return os.environ.get(VARIABLE) == ACCEPT


def fetch(backend: str, revision: str | None = None) -> str:
    """Download the kernel of this backend of diffusers' dispatcher, import it, and return its commit.

    revision  the commit to load, as it was recorded; None: the newest of the version that diffusers names

    Raises UserError where the user does not allow it, where the commit is not of that version's branch, and where the
    files are of no commit. Raises whatever `kernels` raises where it can't be had, as without a network.
    """
    from diffusers.models import attention_dispatch

    name = attention_dispatch.AttentionBackendName(backend)
    how: Any = attention_dispatch._HUB_KERNELS_REGISTRY[name]
    if not allowed():
        raise UserError(f"the attention kernel {backend} of {how.repo_id} {NOT_ALLOWED}; or load another `attention`.")
    if revision is not None and how.kernel_fn is None:
        _check_branch(how.repo_id, how.version, revision)
        how.revision, how.version = revision, None  # `kernels` takes one of them, and finds no version offline
    attention_dispatch._check_attention_backend_requirements(name)
    attention_dispatch._maybe_download_kernel_for_backend(name)
    found = commit_of(sys.modules[how.kernel_fn.__module__].__file__ or "")
    if found is None:
        raise UserError(f"the attention kernel {backend} comes from a folder (LOCAL_KERNELS), not from the hub.")
    return found


def fetch_recorded(revisions: Mapping[str, str]) -> None:
    """Download the kernels that another machine has recorded, where the user allows it, so that trials find them here.

    revisions  part of a pipeline -> its revision: of a kernel, backend -> commit. Other parts are left alone

    Raises UserError for a kernel that can't be had.
    """
    from diffusers.models import attention_dispatch

    known = {backend.value for backend in attention_dispatch._HUB_KERNELS_REGISTRY} if allowed() else set()
    for backend in sorted(known & revisions.keys()):
        try:
            fetch(backend, revisions[backend])
        except UserError:
            raise
        except Exception as error:  # of many classes: of the network, of `kernels`, of the kernel itself
            why = str(error).strip().partition("\n")[0]
            raise UserError(
                f"the attention kernel {backend} of the hub can't be had here at {revisions[backend]} "
                f"({type(error).__name__}: {why.rstrip('.')})."
            ) from None


def commit_of(file: str) -> str | None:
    """The commit in a path of the hub's cache, .../snapshots/COMMIT/...; None: the file lies elsewhere."""
    folders = Path(file).parts
    return folders[folders.index("snapshots") + 1] if "snapshots" in folders[:-1] else None


def _check_branch(repository: str, version: int | None, commit: str) -> None:
    """Raises UserError where the hub is in reach and its branch of this version does not have the commit.

    The commit may come from a file of someone else's. Anyone can propose a change to a repository of the hub, and the
    change is a commit of that repository before anybody has accepted it. Without the hub, the commit must lie in the
    cache, where this user has put it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE or version is None:
        return
    commits = HfApi().list_repo_commits(repository, repo_type="kernel", revision=f"v{version}")
    if commit not in {one.commit_id for one in commits}:
        raise UserError(f"commit {commit} of {repository} is not one of its version {version}: it is not loaded.")
