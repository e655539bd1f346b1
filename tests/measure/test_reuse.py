"""Which pictures a trial draws and which it skips. There is no pipe here: pictures are given, calls are counted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_target
from PIL import Image

from autotune.measure.health import BrokenOutput
from autotune.measure.quality import spot_check_of
from autotune.measure.reuse import complete_pictures, measure_options
from autotune.reuse import Incumbent, Reuse, SourceTrial
from autotune.study_folder import picture_name
from autotune.workload import Workload

PROMPTS = tuple("abcde")
INCUMBENT = Incumbent(trial=4, latencies_s=(0.1,), error=0.0, peak_memory_bytes=1)
FIELDS = {"latency_samples_s": [1.0] * 5, "also": [], "peak_memory_bytes": 100 * 2**20}


def workload(*, batch: int = 1, sizes: int = 1) -> Workload:
    return make_target(batch=batch, sizes=sizes).workload.model_copy(update={"prompts": PROMPTS})


def picture(seed: int, shift: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 200, (64, 64, 3))
    return Image.fromarray((pixels + shift).astype(np.uint8))


def source_trial(folder: Path, prompt: int) -> SourceTrial:
    for index in range(len(PROMPTS)):
        picture(index).save(folder / picture_name(index))
    return SourceTrial(trial=2, prompt=prompt, suspects={}, min_psnr_db=None, conclusive=True, images=str(folder))


class Drawing:
    def __init__(self) -> None:
        self.times, self.checked = 0, list[tuple[int, int]]()

    def draw(self) -> list[Image.Image]:
        self.times += 1
        return [picture(100 + i) for i in range(len(PROMPTS))]

    def check(self, images: Sequence[Image.Image], first: int) -> None:
        self.checked.append((len(images), first))
        if any(np.asarray(image).max() == 0 for image in images):
            raise BrokenOutput("black")

    def complete(self, reuse: Reuse, images: list[Image.Image], **more: Any) -> Any:
        fields = more.pop("fields", FIELDS)
        return complete_pictures(workload(**more), reuse, fields, images, self.draw, self.check)


def test_the_timed_calls_draw_what_is_needed(tmp_path: Path) -> None:
    source = source_trial(tmp_path, 3)
    assert measure_options(workload(), Reuse(), pictures=True) == {"pictures": True, "precision": 0.0}
    shared = measure_options(workload(), Reuse(source=source), pictures=True)
    assert shared == {"pictures": True, "spot_check": 3, "precision": 0.0}
    assert measure_options(workload(batch=2), Reuse(source=source), pictures=True)["spot_check"] == 1, (
        "the call that has prompt 3"
    )
    reuse = Reuse(source=source, incumbents=(INCUMBENT,), spread=0.02)
    assert measure_options(workload(), reuse, pictures=False) == {"pictures": False, "precision": 0.01}


def test_a_config_of_one_size_is_dominated_by_latency_and_memory() -> None:
    found = measure_options(workload(), Reuse(incumbents=(INCUMBENT,)), pictures=True)
    assert found["pictures"] is True
    assert found["dominated"]([1.0] * 5, 100 * 2**20) is True
    assert found["dominated"]([1.0] * 5, 1) is False
    several = measure_options(workload(sizes=2), Reuse(incumbents=(INCUMBENT,)), pictures=True)
    assert several == {"pictures": False, "precision": 0.0}, (
        "all sizes come first, then the pictures, if they are worth it"
    )


@pytest.mark.parametrize(("prompt", "batch", "kept", "first"), [(3, 1, 1, 3), (3, 2, 2, 2), (4, 2, 1, 4)])
def test_with_the_same_picture_the_others_are_skipped(
    tmp_path: Path, prompt: int, batch: int, kept: int, first: int
) -> None:
    """Of a call that makes several, all are compared; the last call wraps around."""
    drawing, source = Drawing(), source_trial(tmp_path, prompt)
    made = [picture((first + i) % 5) for i in range(batch)]
    more, images, at = drawing.complete(Reuse(source=source), made, batch=batch)
    assert (len(images), at, drawing.times) == (kept, first, 0)
    assert (more["spot_check"]["trial"], more["spot_check"]["psnr_db"], more["spot_check"]["largest_levels"]) == (
        2,
        None,
        0,
    )
    assert drawing.checked == [(kept, first)]


def test_another_picture_has_them_all_drawn(tmp_path: Path) -> None:
    drawing = Drawing()
    more, images, first = drawing.complete(Reuse(source=source_trial(tmp_path, 1)), [picture(1, shift=20)])
    assert (len(images), first, drawing.times) == (5, 0, 1)
    assert more["spot_check"]["largest_levels"] == 20
    assert drawing.checked == [(1, 1), (5, 0)]


def test_in_a_call_of_several_the_one_that_is_least_alike_counts(tmp_path: Path) -> None:
    check = spot_check_of([picture(2), picture(3, shift=20)], 2, source_trial(tmp_path, 2))
    assert (check.largest_levels, check.same) == (20, False)
    assert check.ssim < 1


def test_a_dominated_config_draws_nothing_more_but_its_pictures_are_checked() -> None:
    drawing, reuse = Drawing(), Reuse(incumbents=(INCUMBENT,))
    more, images, _ = drawing.complete(reuse, [picture(0), picture(1)])
    assert more["stopped"].startswith("can't reach the front: trial 4 is 10.00x as fast")
    assert (images, drawing.times) == ([], 0)
    with pytest.raises(BrokenOutput):
        drawing.complete(reuse, [Image.new("RGB", (64, 64))])


def test_of_several_sizes_all_count_before_anything_is_drawn() -> None:
    also = [{"latency_samples_s": [3.0] * 5}]
    incumbent = INCUMBENT.model_copy(update={"latencies_s": (3.8,)})
    fields = {**FIELDS, "also": also}
    drawing = Drawing()
    assert "stopped" in drawing.complete(Reuse(incumbents=(incumbent,)), [], sizes=2, fields=fields)[0]
    even = incumbent.model_copy(update={"latencies_s": (4.2,)})
    more, images, _ = drawing.complete(Reuse(incumbents=(even,)), [], sizes=2, fields=fields)
    assert (more, len(images), drawing.times) == ({"spot_check": None}, 5, 1)


def test_without_reuse_the_pictures_are_those_of_the_timed_calls() -> None:
    drawing, made = Drawing(), [picture(i) for i in range(5)]
    assert drawing.complete(Reuse(), [*made, picture(0)]) == ({"spot_check": None}, made, 0)
    assert drawing.times == 0
