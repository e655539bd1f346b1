"""Video: the frames of one clip, and how a clip is kept (an animated PNG) and played (an animated WebP).

A clip is a picture of the workload that has frames. Its file has the name of a picture: what opens it as a picture sees
its first frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

from autotune.workload import MOST_FRAMES

if TYPE_CHECKING:
    from PIL.Image import Image

FRAMES_PER_S = 16  # at which a clip is played: Wan's. It is no part of what is measured
FRAME_MS = 1000 // FRAMES_PER_S
COUNT = "autotune:frames"  # the text in the file that says how many frames there are


@dataclass(frozen=True)
class Video:
    """The frames of one clip, of one size, in the order in which they are shown."""

    frames: tuple["Image", ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame, in pixels."""
        return self.frames[0].size

    def save(self, path: Path) -> None:
        """Write the clip without loss as an animated PNG. Raises OSError."""
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_text(COUNT, str(len(self.frames)))
        first, *others = (frame.convert("RGB") for frame in self.frames)
        how = {"save_all": True, "append_images": others, "duration": FRAME_MS, "loop": 0}
        first.save(path, "PNG", pnginfo=text, compress_level=1, **how)

    def write(self, path: Path) -> None:
        """Write the clip for people, in the format of the file's name: .webp, .gif, .png or .mp4. Raises OSError."""
        match path.suffix.lower():
            case ".webp":
                write_loop(self.frames, path, quality=90)
            case ".gif":
                first, *others = (frame.convert("RGB") for frame in self.frames)
                first.save(path, "GIF", save_all=True, append_images=others, duration=FRAME_MS, loop=0)
            case ".mp4":
                from diffusers.utils import export_to_video

                export_to_video(list(self.frames), str(path), fps=FRAMES_PER_S)
            case _:
                self.save(path)


def mp4_fault() -> str | None:
    """Why no .mp4 can be written here, as a clause; None: it can."""
    have = {name: find_spec(name) is not None for name in ("imageio", "imageio_ffmpeg")}
    return None if all(have.values()) else "an .mp4 needs the package imageio with ffmpeg (pip install imageio[ffmpeg])"


Picture: TypeAlias = "Image | Video"  # what a call gives for each prompt


def frames_of(picture: Picture) -> tuple["Image", ...]:
    """The frames of a clip; of a picture, the picture."""
    return picture.frames if isinstance(picture, Video) else (picture,)


def read_frames(path: Path) -> tuple["Image", ...]:
    """The frames of the clip in this file, in RGB; of a picture, the picture. Raises OSError.

    Frames that are the same as the one before are not in the file: the one before lasts longer.
    """
    from PIL import Image, ImageSequence

    frames: list[Image.Image] = []
    try:
        with Image.open(path) as file:
            count = min(int(file.info.get(COUNT, 1)), MOST_FRAMES)
            for frame in ImageSequence.Iterator(file):
                shown = max(1, round(float(frame.info.get("duration", FRAME_MS)) / FRAME_MS))
                frames += [frame.convert("RGB")] * min(shown, count - len(frames))
                if len(frames) >= count:
                    break
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow says that a file is damaged
        raise OSError(f"the clip {str(path)!r} is damaged ({error})") from error
    return tuple(frames + frames[-1:] * (count - len(frames)))


def write_loop(frames: Sequence["Image"], file: Path | IO[bytes], *, frame_ms: int = FRAME_MS, quality: int) -> None:
    """Write the frames as an animated WebP that is shown again and again. `quality`: 0 to 100, of WebP."""
    first, *others = (frame.convert("RGB") for frame in frames)
    how = {"save_all": True, "append_images": others, "duration": frame_ms, "loop": 0, "quality": quality}
    first.save(file, "WEBP", **how)


def spread(count: int, at_most: int) -> list[int]:
    """The numbers of at most `at_most` of `count` frames, spread over the clip, its first and its last among them."""
    if count <= at_most:
        return list(range(count))
    if at_most == 1:
        return [count // 2]
    return sorted({round(i * (count - 1) / (at_most - 1)) for i in range(at_most)})
