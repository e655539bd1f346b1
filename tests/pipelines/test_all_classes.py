"""Every pipeline of diffusers goes the whole path of a search, is refused with a sentence, or is on docs/pipelines.md.

The whole path: probe, knobs, two trials, export, load, plain script (tests/whole_path.py). A third of the classes goes
it on one day, the next third on the next. AUTOTUNE_CLASSES=all (`make all-pipelines`) takes all of them.
"""

import os
import re
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import pytest
from tiny_classes import can_make, tiny_of
from whole_path import few_calls, whole_path

from autotune.errors import UserError
from autotune.pipelines.inputs import check_call

PAGE = Path(__file__).parents[2] / "docs" / "pipelines.md"
ROW = re.compile(r"^\| `(\w+Pipeline)` \| (.+) \|$", re.MULTILINE)
SIDES = {"IF": 16, "Kandinsky": 64, "HiDream": 256, "QwenImageEdit": 64}  # by the beginning of the name, else 32 pixels
# What a call needs beside what autotune sets by itself: options of search, as a user gives them.
CALLS: dict[str, dict[str, Any]] = {
    "ChronoEditPipeline": {"frames": 5},  # it draws no more, whatever is asked
    "EasyAnimatePipeline": {"negative_prompt": "a grey square"},  # its guided call fails without one
    **{
        f"StableDiffusionXLControlNetUnion{task}Pipeline": {"call": {"control_mode": [0]}}
        for task in ("", "Img2Img", "Inpaint")
    },
}
STEPS = 2
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
if find_spec("torchvision"):  # then those go the path that lacked nothing else
    EXCEPTIONS = {name: why for name, why in EXCEPTIONS.items() if "whole path by hand" not in why}
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
@pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")  # of Depth2Img, which asks for it in float32
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")  # one of the drawn values
@pytest.mark.parametrize("name", DRAWN if os.environ.get("AUTOTUNE_CLASSES") == "all" else TODAY)
def test_probe_knobs_two_trials_export_load_and_script(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_calls(monkeypatch)
    side = next((side for start, side in SIDES.items() if name.startswith(start)), 32)
    checkpoint = tiny_of(name, tmp_path / name)
    target = whole_path(checkpoint, tmp_path / "study", side=side, steps=STEPS, seed=name, **CALLS.get(name, {}))
    traits = target.pipeline.known
    assert traits.class_name == name
    assert traits.denoiser
    assert traits.default_width or traits.unknown["default_width"]
    assert side % traits.size_multiple == 0
