"""Gallery: the pictures of a report: the baseline's, each config's, and heat-maps of their differences.

All are data URIs. Small pictures are kept bit for bit. Large ones are shrunk, after the differences were computed. A
clip is a small picture that moves, again and again.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageStat

from autotune.pictures.video import FRAME_MS, read_frames, spread, write_loop
from autotune.study.record import usable_picture, warn_once
from autotune.study_folder import StudyFolder, picture_name
from autotune.workload import open_picture

LARGEST_PX = 512  # of the longer side on the page
MOST_PICTURES = 96  # of all configs together, so that the page stays small enough to be sent
MOST_PROMPTS = 8
LOOP_PX, LOOP_FRAMES = 256, 33  # of a clip on the page: the longer side, and the most frames
FULL_SCALE = 32  # of 255 levels: a difference this large in any channel has the brightest colour


@dataclass(frozen=True)
class Shot:
    """One prompt, drawn by one config. `heat` is its difference from the baseline's picture, None for the baseline."""

    prompt: str
    uri: str
    heat: str | None = None
    difference: float | None = None  # mean, of 255 levels


@dataclass(frozen=True)
class Reel:
    """The pictures of one config, in the order of the prompts."""

    trial: int
    shots: tuple[Shot, ...]


def reels(
    folder: StudyFolder, trials: Iterable[int], prompts: tuple[str, ...], drawn_by: Mapping[int, int] | None = None
) -> list[Reel]:
    """The baseline's reel, then one for each of these trials that has pictures; [] where the baseline has none.

    drawn_by  trial -> the source trial whose pictures it has reused
    """
    of = {number: (drawn_by or {}).get(number, number) for number in dict.fromkeys(trials)}
    chosen = [number for number, source in of.items() if number != 0 and _has_picture(folder, source, 0)]
    count = min(len(prompts), MOST_PROMPTS, max(2, MOST_PICTURES // (2 * len(chosen) + 1)))
    shown = [
        i for i in range(count) if all(_has_picture(folder, source, i) for source in (0, *(of[n] for n in chosen)))
    ]
    if not shown:
        return []
    first = Reel(0, tuple(Shot(prompts[i], _uri(_frames(folder, 0, i))) for i in shown))
    return [first, *(Reel(number, tuple(_shot(folder, of[number], i, prompts[i]) for i in shown)) for number in chosen)]


def _shot(folder: StudyFolder, number: int, index: int, prompt: str) -> Shot:
    baseline, frames = _frames(folder, 0, index), _frames(folder, number, index)
    heats = [heat_map(one, other) for one, other in zip(baseline, frames, strict=False)]
    mean = sum(mean for _, mean in heats) / len(heats)
    return Shot(prompt, _uri(frames), _uri([heat for heat, _ in heats]), mean)


def heat_map(first: Image.Image, second: Image.Image) -> tuple[Image.Image, float]:
    """The difference of two pictures as a picture, dark to bright, and its mean in levels of 255.

    The second picture is resized where the sizes differ.
    """
    if first.size != second.size:
        second = second.resize(first.size)
    channels = ImageChops.difference(first, second)
    mean = sum(ImageStat.Stat(channels).mean) / 3
    red, green, blue = channels.split()
    largest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    scaled = largest.point(lambda level: min(255, round(level * 255 / FULL_SCALE)))
    scaled.putpalette(_PALETTE)
    return scaled.convert("RGB"), mean


def _palette() -> list[int]:
    """256 RGB triples, from black over purple and orange to pale yellow, with rising brightness all the way."""
    stops = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
    colours: list[int] = []
    for level in range(256):
        place, share = divmod(level / 255 * (len(stops) - 1), 1)
        low, high = stops[int(place)], stops[min(int(place) + 1, len(stops) - 1)]
        colours += [round(a + (b - a) * share) for a, b in zip(low, high, strict=True)]
    return colours


_PALETTE = _palette()


def _has_picture(folder: StudyFolder, number: int, index: int) -> bool:
    """Is it there and whole? One that is damaged costs itself and a warning, never the report."""
    path = folder.trial(number) / "images" / picture_name(index)
    return path.exists() and usable_picture(path)


def _frames(folder: StudyFolder, number: int, index: int) -> Sequence[Image.Image]:
    """The picture of this prompt, or the frames of its clip; of a clip that is damaged after its first frame, this."""
    path = folder.trial(number) / "images" / picture_name(index)
    try:
        return read_frames(path)
    except OSError as error:
        warn_once(f"the report shows the first frame only: {error}.")
        return [open_picture(path, f"picture of trial {number}")]


def _uri(frames: Sequence[Image.Image]) -> str:
    """The picture or, of several frames, an animation that lasts as long as the clip."""
    if len(frames) == 1:
        return _of_picture(frames[0])
    shown = [frames[number].copy() for number in spread(len(frames), LOOP_FRAMES)]
    for frame in shown:
        frame.thumbnail((LOOP_PX, LOOP_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    write_loop(shown, file, frame_ms=round(FRAME_MS * len(frames) / len(shown)), quality=70)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _of_picture(image: Image.Image) -> str:
    small = max(image.size) <= LARGEST_PX // 2
    if not small:
        image = image.copy()
        image.thumbnail((LARGEST_PX, LARGEST_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG" if small else "WEBP", **({"optimize": True} if small else {"quality": 88}))
    kind = "png" if small else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
