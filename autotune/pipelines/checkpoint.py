"""Checkpoint: how a pipeline lies on the disk: as a single file, as a variant, in a folder of the hub's cache.

torch is imported inside functions only. A form is found by looking at names of files and at the header of a file.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from autotune.errors import UserError

WEIGHTS_FILE = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>[a-z0-9_-]+?))?(?:-\d{5}-of-\d{5})?\.safetensors"
)
SINGLE_FILE = ".safetensors"


def is_single_file(source: str) -> bool:
    """Is this source one file that holds all weights?"""
    return source.endswith(SINGLE_FILE)


def variant_of(names: Iterable[str]) -> str | None:
    """The variant to load of these files ("unet/diffusion_pytorch_model.fp16.safetensors"), such as "fp16".

    None: every folder with weights has plain ones, which are loaded. Of several variants, the first by name.
    """
    there: dict[str, set[str | None]] = {}
    for name in map(PurePosixPath, names):
        if found := WEIGHTS_FILE.fullmatch(name.name):
            there.setdefault(str(name.parent), set()).add(found["variant"])
    without_plain = [variants for variants in there.values() if None not in variants]
    common = set.intersection(*({v for v in variants if v} for variants in without_plain)) if without_plain else set()
    return min(common, default=None)


def variant_in(folder: Path) -> str | None:
    """variant_of() the files of this folder."""
    return variant_of(str(path.relative_to(folder)) for path in folder.glob("*/*.safetensors"))


def snapshot_of(folder: Path) -> Path | None:
    """The snapshot in a model's folder of the hub's cache, of "main" or the newest; None: it is no such folder."""
    snapshots = [path for path in (folder / "snapshots").glob("*") if (path / "model_index.json").is_file()]
    if not snapshots:
        return None
    main = folder / "refs" / "main"
    wanted = main.read_text().strip() if main.is_file() else ""
    return next((path for path in snapshots if path.name == wanted), max(snapshots, key=lambda p: p.stat().st_mtime))


def looks_like_path(word: str) -> bool:
    """Did the user mean a place on this disk? Then it is not looked up on the hub."""
    path = Path(word).expanduser()
    if word.startswith((".", "/", "~")) or word.endswith(("/", SINGLE_FILE, ".ckpt", ".pt", ".bin", ".gguf")):
        return True
    return len(path.parts) != 2 or Path(path.parts[0]).is_dir()


def configuration_of(path: Path) -> str:
    """The hub id of the configurations that diffusers loads this single file with. Reads its header only.

    Raises UserError where diffusers knows none.
    """
    import torch
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    tensors = tensors_of(path)
    held = {name: torch.empty(tensor["shape"], device="meta") for name, tensor in tensors.items()}
    try:
        found: dict[str, Any] = fetch_diffusers_config(held)
    except (KeyError, ValueError, IndexError):
        found = {}
    # For tensors that it does not know, diffusers names Stable Diffusion 1.5.
    known = any(name.startswith(("model.diffusion_model.", "double_blocks.", "joint_blocks.")) for name in tensors)
    if not found or not (known or found != fetch_diffusers_config({})):
        raise UserError(f"diffusers does not know what {str(path)!r} holds: name a pipeline like it by --config.")
    return str(found["pretrained_model_name_or_path"])


def tensors_of(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> what the header of a safetensors file says of this tensor: its "dtype", as "BF16", and its "shape".

    Raises UserError for a file that is none.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a safetensors file ({error}).") from None
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def quantized_components(folder: Path) -> dict[str, str]:
    """Component -> the method by which the checkpoint has quantized it, as its configuration says."""
    found = {}
    for path in sorted(folder.glob("*/config.json")):
        method = json.loads(path.read_text()).get("quantization_config", {}).get("quant_method")
        if method is not None:
            found[path.parent.name] = str(method)
    return found
