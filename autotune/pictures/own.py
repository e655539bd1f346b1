"""Own: the user's pictures that calls start from. They are kept by the digest of their pixels, in the user's cache."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.errors import UserError
from autotune.study_folder import caches
from autotune.workload import Workload, digest_of, open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

START = ("image", "control_image", "ip_adapter_image")  # arguments that --image may mean, the first that there is
MOST_KEPT = 256  # opened pictures of a process


def keep(name: str, files: str | Path | Sequence[str | Path] | None, *, prompts: int) -> tuple[str, ...]:
    """The digests of the pictures in these files, of which copies are kept in the cache.

    name     "image", "mask" or "control_image"
    prompts  how many there are: one picture is for all of them, several are one for each

    Raises UserError where a file is no picture, and for another number of them.
    """
    option = f"--{name.replace('_', '-')}"
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files or ()]
    if len(paths) not in (0, 1, prompts):
        raise UserError(
            f"{option} is given {len(paths)} times, and there are {prompts} prompts: give one picture for all of them, "
            "or one for each in their order."
        )
    return tuple(_keep(path, f"picture {str(path)!r} of {option}") for path in paths)


def _keep(path: Path, what: str) -> str:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(open_picture(path, what))  # as its viewer shows it
    digest = digest_of(image)
    kept = _file(digest)
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        image.save(unfinished, format="PNG")
        unfinished.replace(kept)
    return digest


def give_again(workload: Workload, files: Sequence[Path]) -> None:
    """Keep pictures of the workload that this machine has no more. Raises UserError for others."""
    known = {digest for digests in workload.pictures.values() for digest in digests}
    for file in files:
        what = f"picture {str(file)!r} of --image"
        if _keep(file, what) not in known:
            raise UserError(
                f"the {what} is none of those that the search started from: they are known by their pixels."
            )


def argument_of(option: str, inputs: Mapping[str, str]) -> str | None:
    """The argument of the call that takes the pictures of this option; None: no argument does.

    option  "image", "mask" or "control_image"
    inputs  the arguments that take pictures -> the kind of each, see Traits.inputs
    """
    wanted = {
        "image": START,
        "mask": ("mask_image",),
        "control_image": tuple(name for name, kind in inputs.items() if kind == "edges"),
    }
    return next((name for name in wanted[option] if name in inputs), None)


def at_hand(workload: Workload) -> Workload:
    """The workload, without the user's pictures if one of them is not on this machine: a server needs none."""
    here = all(_file(digest).exists() for digests in workload.pictures.values() for digest in digests)
    return workload if here else workload.model_copy(update={"pictures": {}})


def pictures_of(
    workload: Workload, argument: str, prompts: Sequence[str], seeds: Sequence[int], mode: str, size: tuple[int, int]
) -> "list[Image] | None":
    """The user's picture of each prompt of a call, in this mode and size; None: this argument has none.

    Raises UserError where a picture is not on this machine.
    """
    digests = workload.pictures.get(argument)
    if digests is None:
        return None
    places = [_index(workload, prompt, seed) % len(digests) for prompt, seed in zip(prompts, seeds, strict=True)]
    return [_opened(digests[place], argument, mode, size) for place in places]


def _index(workload: Workload, prompt: str, seed: int) -> int:
    """The place of the prompt of a call among those of the workload; of one that is not among them, 0."""
    alike = [i for i, own in enumerate(workload.prompts) if own == prompt]
    return next((i for i in alike if workload.seed_of(i) == seed), next(iter(alike), 0))


@functools.lru_cache(maxsize=MOST_KEPT)
def _opened(digest: str, argument: str, mode: str, size: tuple[int, int]) -> "Image":
    path = _file(digest)
    if not path.exists():
        raise UserError(
            f"the calls start from a picture ({argument}, {digest[:12]}) that is not on this machine: give its file to "
            "`autotune verify` by --image, or search here with it."
        )
    image = open_picture(path, f"kept picture {str(path)!r}")
    if digest_of(image) != digest:
        raise UserError(f"the kept picture {str(path)!r} was changed: remove it, and start again.")
    return image.convert(mode).resize(size)


def _file(digest: str) -> Path:
    return caches() / "pictures" / f"{digest}.png"
