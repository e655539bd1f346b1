"""Contact sheet: pictures.png, the baseline's pictures above, the pick's below, prompt by prompt."""

from pathlib import Path

from PIL import Image

from autotune.study.record import usable_picture
from autotune.study_folder import StudyFolder
from autotune.workload import open_picture

COLUMNS = 8
GAP_PX = 4


def contact_sheet(folder: StudyFolder, best: int, side_px: int = 128) -> Image.Image | None:
    """The first COLUMNS pictures of trial 0 (upper row) and of trial `best` (lower row), same prompt and seed.

    None where no prompt has a whole picture of both.
    """
    names = [sorted(path.name for path in (folder.trial(n) / "images").glob("*.png"))[:COLUMNS] for n in (0, best)]
    pairs = [[folder.trial(n) / "images" / name for n in (0, best)] for name in names[0] if name in names[1]]
    whole = [pair for pair in pairs if all(map(usable_picture, pair))]
    if not whole:
        return None
    rows = list(zip(*whole, strict=True))
    step = side_px + GAP_PX
    sheet = Image.new("RGB", (step * len(rows[0]) - GAP_PX, step * len(rows) - GAP_PX), "white")
    for y, row in enumerate(rows):
        for x, path in enumerate(row):
            sheet.paste(_thumbnail(path, side_px), (x * step, y * step))
    return sheet


def _thumbnail(path: Path, side_px: int) -> Image.Image:
    image = open_picture(path, f"picture {str(path)!r}")
    scale = side_px / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    # Small pictures are enlarged without smoothing, so that every pixel is shown as it is.
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
