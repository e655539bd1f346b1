"""Every pipeline of the installed diffusers is drawn with, refused with a sentence, or named in docs/pipelines.md.

A third of the classes is drawn on one day, the next third on the next. AUTOTUNE_CLASSES=all (`make all-pipelines`)
draws with all of them.
"""

import os
import re
from datetime import date
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tiny_classes import can_make, tiny_of

from autotune.building import build
from autotune.errors import UserError
from autotune.knobs import complete
from autotune.measure import draw
from autotune.pipelines import resolve
from autotune.pipelines.inputs import check_call
from autotune.pipelines.inspect import traits_of
from autotune.workload import Workload

PAGE = Path(__file__).parents[2] / "docs" / "pipelines.md"
ROW = re.compile(r"^\| `(\w+Pipeline)` \| (.+) \|$", re.MULTILINE)
SIDES = {"IF": 16, "Kandinsky": 64}  # pixels, by the beginning of the name; 32 for the others
STEPS = 2
FROM_PICTURE_STEPS = 7  # so that a strength of 0.3 leaves two
SHARES = 3


def listing() -> list[str]:
    """The pipelines that diffusers exports, deprecated ones among them."""
    found = {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Pipeline")}
    classes = {name: cls for name, cls in found.items() if isinstance(cls, type)}
    return [n for n, cls in classes.items() if issubclass(cls, diffusers.DiffusionPipeline) and cls.__name__ == n]


def refusal(name: str) -> str | None:
    """What the probe says of this class by its call alone; None: it is accepted."""
    try:
        check_call(object.__new__(getattr(diffusers, name)))
    except UserError as error:
        return str(error)
    return None


ABSTRACT = {"DiffusionPipeline"}
CLASSES = [name for name in listing() if name not in ABSTRACT]
REFUSED = {name: why for name in CLASSES if (why := refusal(name)) is not None}
EXCEPTIONS = dict(ROW.findall(PAGE.read_text(encoding="utf-8")))
DRAWN = [name for name in CLASSES if name not in REFUSED and name not in EXCEPTIONS]
TODAY = [n for i, n in enumerate(DRAWN) if i % SHARES == date.today().toordinal() % SHARES]


def test_every_class_is_drawn_refused_or_on_the_page() -> None:
    missing = {name: why for name in DRAWN if (why := can_make(name)) is not None}
    assert not missing, f"make a tiny component for each in tests/tiny_classes.py, or add a row to {PAGE.name}"
    assert len(DRAWN) > 70


def test_the_page_names_no_class_that_is_gone_or_refused() -> None:
    assert [name for name in EXCEPTIONS if name not in CLASSES or name in REFUSED] == []


def test_a_refusal_says_what_the_class_lacks() -> None:
    for name, why in REFUSED.items():
        assert why.startswith(name), why
        assert "does not make pictures from a prompt" in why or "needs the argument" in why


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of diffusers, about its own classes and configurations
@pytest.mark.parametrize("name", DRAWN if os.environ.get("AUTOTUNE_CLASSES") == "all" else TODAY)
def test_the_probe_reads_the_traits_and_a_call_draws_the_requested_size(name: str, tmp_path: Path) -> None:
    pipeline = resolve(str(tiny_of(name, tmp_path / name))).model_copy(update={"scorer": None})
    traits = traits_of(pipeline)
    assert traits.class_name == name
    assert traits.denoiser
    assert traits.default_width or traits.unknown["default_width"]
    side = next((side for start, side in SIDES.items() if name.startswith(start)), 32)
    assert side % traits.size_multiple == 0
    workload = Workload(
        prompts=("a red circle", "a blue star"),
        width=side,
        height=side,
        steps=FROM_PICTURE_STEPS if traits.inputs else STEPS,
        guidance_scale=traits.default_guidance_scale,
        negative_prompt=traits.default_negative_prompt,
    )
    pipe: Any = build.load(pipeline, complete({}), "cpu")
    build.apply(pipe, complete({}), workload, "cpu")
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        images = draw(pipe, workload)
    assert [image.size for image in images] == [(side, side)] * 2
