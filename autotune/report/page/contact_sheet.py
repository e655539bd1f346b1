"""Contact sheet: pictures.png, the baseline's pictures above, the pick's below, prompt by prompt.

Of clips, each prompt has two rows: frames of the baseline's clip, and below them the same frames of the pick's.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from autotune.pictures.video import read_frames, spread
from autotune.study.record import usable_picture
from autotune.study_folder import StudyFolder
from autotune.workload import open_picture

COLUMNS = 8
CLIPS = 4  # of a sheet of clips, at most
GAP_PX = 4


def contact_sheet(folder: StudyFolder, best: int, side_px: int = 128) -> Image.Image | None:
    """The first COLUMNS pictures of trial 0 (upper row) and of trial `best` (lower row), same prompt and seed.

    Of clips, COLUMNS frames of each of the first CLIPS.

    None where no prompt has a whole picture of both.
    """
    names = [sorted(path.name for path in (folder.trial(n) / "images").glob("*.png"))[:COLUMNS] for n in (0, best)]
    pairs = [[folder.trial(n) / "images" / name for n in (0, best)] for name in names[0] if name in names[1]]
    whole = [pair for pair in pairs if all(map(usable_picture, pair))]
    if not whole:
        return None
    rows = _rows(whole)
    step = side_px + GAP_PX
    sheet = Image.new("RGB", (step * max(map(len, rows)) - GAP_PX, step * len(rows) - GAP_PX), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(_thumbnail(image, side_px), (x * step, y * step))
    return sheet


def _rows(pairs: list[list[Path]]) -> list[list[Image.Image]]:
    """The pictures of each row, from the files of the baseline and the pick, prompt by prompt."""
    opened = [[_frames(path) for path in pair] for pair in pairs[:CLIPS]]
    if all(len(frames) == 1 for pair in opened for frames in pair):
        return [[open_picture(path, f"picture {str(path)!r}") for path in row] for row in zip(*pairs, strict=True)]
    return [[frames[number] for number in spread(len(frames), COLUMNS)] for pair in opened for frames in pair]


def _frames(path: Path) -> Sequence[Image.Image]:
    """The picture, or the frames of the clip; of a clip that is damaged after its first frame, this."""
    try:
        return read_frames(path)
    except OSError:
        return [open_picture(path, f"picture {str(path)!r}")]


def _thumbnail(image: Image.Image, side_px: int) -> Image.Image:
    scale = side_px / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    # Small pictures are enlarged without smoothing, so that every pixel is shown as it is.
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
