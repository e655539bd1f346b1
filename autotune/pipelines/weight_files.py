"""Weight files: the number formats in which a pipeline's files hold its weights, read off the safetensors headers.

A header is a few kilobytes at the beginning of a file: no weights are read, and of a file on the hub nothing else is
downloaded.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from autotune.errors import UserError
from autotune.pipelines.checkpoint import WEIGHTS_FILE, tensors_of, variant_of
from autotune.pipelines.locate import part_folder

Counts = dict[str, int]  # number format as safetensors calls it ("F32", "F16", "BF16") -> number of weights


def stored_formats(
    source: str, revision: str | None, components: Sequence[str], variant: str | None = None
) -> dict[str, Counts]:
    """Component -> how many weights its files hold in each number format. Components without readable files are absent.

    source      a folder on this disk, or a hub id. A hub's files that are not on this disk are asked by their headers
    components  their folders' names; "" is the source itself
    variant     of the files, such as "fp16"; None: the one that is loaded where there are no plain ones

    Loads no torch. A hub that can't be reached tells nothing: the formats are then unknown.
    """
    try:
        folder = part_folder(source, revision=revision, local_files_only=True, only=())
    except UserError:
        folder = None
    found: dict[str, Counts] = {}
    if folder is not None:
        files = [str(path.relative_to(folder)) for path in folder.rglob("*.safetensors")]
        found = _formats(components, files, variant, lambda name: counted(folder / name))
    left = [name for name in components if name not in found]
    on_hub = left and not Path(source).is_absolute()
    return found | (_on_hub(source, revision, left, variant) if on_hub else {})


def counted(path: Path) -> Counts:
    """The weights in one safetensors file. Raises UserError for a file that is none."""
    counts: Counter[str] = Counter()
    for tensor in tensors_of(path).values():
        counts[tensor["dtype"]] += math.prod(tensor["shape"])
    return dict(counts)


def _formats(
    components: Iterable[str], files: Sequence[str], variant: str | None, counts: Callable[[str], Counts]
) -> dict[str, Counts]:
    """See stored_formats(). `counts` reads one of the files, by its path in the source."""
    wanted = variant or variant_of(files)
    found: dict[str, Counts] = {}
    for component in components:
        here = [name for name in files if str(PurePosixPath(name).parent) == (component or ".")]
        total: Counter[str] = Counter()
        for name in _of_variant(here, wanted) or _of_variant(here, None):
            total.update(counts(name))
        if total:
            found[component] = dict(total)
    return found


def _of_variant(files: Iterable[str], variant: str | None) -> list[str]:
    """The weights of one model in this variant, of the files in its folder: its shards, or else one file."""
    matches = {name: WEIGHTS_FILE.fullmatch(PurePosixPath(name).name) for name in files}
    chosen = [name for name, match in matches.items() if match and match["variant"] == variant]
    return [name for name in chosen if "-of-" in name] or chosen


def _on_hub(source: str, revision: str | None, components: Iterable[str], variant: str | None) -> dict[str, Counts]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    unreachable: Any = HfHubHTTPError.__bases__  # the errors of the client for HTTP, which is another one by version

    hub: Any = HfApi()

    def counts(name: str) -> Counts:
        return dict(hub.parse_safetensors_file_metadata(source, name, revision=revision).parameter_count)

    try:
        files = [file.rfilename for file in hub.model_info(source, revision=revision).siblings or ()]
        return _formats(components, files, variant, counts)
    except (*unreachable, OSError, ValueError):  # no network, no permission: nothing is known of its files
        return {}
