"""Weight files: the number formats in which a pipeline's files hold its weights, read off the safetensors headers.

A header is a few kilobytes at the beginning of a file: no weights are read, and of a file on the hub nothing else is
downloaded.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from autotune.errors import UserError
from autotune.pipelines.locate import part_folder

NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")  # of diffusers' and transformers' models
LONGEST_HEADER = 100 * 10**6  # bytes, as in the safetensors library
Counts = dict[str, int]  # number format as safetensors calls it ("F32", "F16", "BF16") -> number of weights


def stored_formats(source: str, revision: str | None, components: Iterable[str]) -> dict[str, Counts]:
    """Component -> how many weights its files hold in each number format. Components without readable files are absent.

    source      a folder on this disk, or a hub id. A hub's files that are not on this disk are asked by their headers
    components  their folders' names; "" is the source itself

    Loads no torch. A hub that can't be reached tells nothing: the formats are then unknown.
    """
    try:
        folder = part_folder(source, revision=revision, local_files_only=True, only=())
    except UserError:
        folder = None
    found: dict[str, Counts] = {}
    if folder is not None:
        files = [str(path.relative_to(folder)) for path in folder.rglob("*.safetensors*")]
        found = _formats(
            components, files, lambda name: (folder / name).read_text(), lambda name: header(folder / name)
        )
    left = [name for name in components if name not in found]
    return found | (_on_hub(source, revision, left) if left and not Path(source).is_absolute() else {})


def header(path: Path) -> Counts:
    """The weights in one safetensors file. Raises UserError for a file that is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise UserError(f"{str(path)!r} is not a safetensors file: its header can't be {length} bytes long.")
        try:
            tensors = json.loads(file.read(length))
        except ValueError:
            raise UserError(f"{str(path)!r} is not a safetensors file: its header is not JSON.") from None
    counts: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if name != "__metadata__":
            counts[tensor["dtype"]] += math.prod(tensor["shape"])
    return dict(counts)


def _formats(
    components: Iterable[str], files: Iterable[str], text: Callable[[str], str], counts: Callable[[str], Counts]
) -> dict[str, Counts]:
    """See stored_formats(). `text` and `counts` read one of the files, by its path in the source."""
    found: dict[str, Counts] = {}
    for component in components:
        here = {PurePosixPath(f).name: f for f in files if str(PurePosixPath(f).parent) == (component or ".")}
        total: Counter[str] = Counter()
        for name in _loaded(here, text):
            total.update(counts(name))
        if total:
            found[component] = dict(total)
    return found


def _loaded(here: Mapping[str, str], text: Callable[[str], str]) -> list[str]:
    """The files that are loaded of those in a component's folder (name -> path): the shards of an index, or one file.

    Variants ("model.fp16.safetensors") are not loaded.
    """
    for name in NAMES:
        if f"{name}.index.json" in here:
            shards = set(json.loads(text(here[f"{name}.index.json"]))["weight_map"].values())
            return [here[shard] for shard in sorted(shards) if shard in here]
        if name in here:
            return [here[name]]
    return []


def _on_hub(source: str, revision: str | None, components: Iterable[str]) -> dict[str, Counts]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    unreachable: Any = HfHubHTTPError.__bases__  # the errors of the client for HTTP, which is another one by version

    hub: Any = HfApi()

    def text(name: str) -> str:
        return Path(hf_hub_download(source, name, revision=revision)).read_text()

    def counts(name: str) -> Counts:
        return dict(hub.parse_safetensors_file_metadata(source, name, revision=revision).parameter_count)

    try:
        files = [file.rfilename for file in hub.model_info(source, revision=revision).siblings or ()]
        return _formats(components, files, text, counts)
    except (*unreachable, OSError, ValueError):  # no network, no permission: nothing is known of its files
        return {}
