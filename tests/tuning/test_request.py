"""The default folder of a study: its name tells apart what makes another study, and the same command finds it again."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, gpu

from autotune.pipelines import resolve
from autotune.tuning import search
from autotune.tuning.request import asked_beyond, default_folder
from autotune.tuning.search import GOES_ON

LOADED = {"lora", "scheduler", "task"}


def name_of(pipeline: str = "demo", **given: Any) -> str:
    described = resolve(pipeline, "pretrained", **{name: given[name] for name in LOADED & given.keys()})
    device = given.pop("card", CPU)
    asked = asked_beyond(search.search, {"pipeline": pipeline, **given}, described, device, GOES_ON)
    return default_folder(described, device, asked).name


def test_a_search_without_options_has_a_plain_name() -> None:
    defaults = {name: known.default for name, known in inspect.signature(search.search).parameters.items()}
    assert name_of(**defaults).endswith("-demo-cpu")
    assert name_of(exclude=(), fix={}, workloads=[]).endswith("-demo-cpu"), "as the command line gives them"
    assert name_of(budget=7, quick=True, sampler="tpe", timeout_s=5.0, study=None).endswith("-demo-cpu")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"scheduler": "DDIMScheduler"}, {"scheduler": "DDIMScheduler:timestep_spacing=trailing"}),
        ({"steps": 3}, {"steps": 4}),
        ({"guidance": 0.0}, {}),
        ({"fix": {"compile": "off"}}, {"fix": {"compile": "regional"}}),
        ({"exclude": ["compile"]}, {"exclude": ["cache"]}),
        ({"max_vram_bytes": 2**30}, {}),
        ({"prompts": Path("a.txt")}, {"prompts": Path("b.txt")}),
        ({"card": gpu(8, 0)}, {"card": gpu(8, 0).model_copy(update={"index": 1})}),
        ({"isolation": "spawn"}, {}),
    ],
)
def test_what_makes_another_study_has_another_folder(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert name_of(**one) != name_of(**other)


def test_equal_arguments_name_one_folder() -> None:
    one, other = {"compile": "off", "dtype": "bf16"}, {"dtype": "bf16", "compile": "off"}
    assert name_of(fix=one, exclude=("cache",)) == name_of(fix=other, exclude=["cache"], budget=100)
    assert name_of(prompts="a.txt") == name_of(prompts=Path("a.txt"))


def test_what_a_study_goes_on_with_are_arguments_of_search() -> None:
    known = inspect.signature(search.search).parameters.keys()
    assert known >= set(GOES_ON), "a name that search() does not know holds nothing"


def test_a_search_takes_the_folder_of_what_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "run", lambda request, listen: request.folder.path.name)
    names: list[Any] = [search.search(device="cpu", **{"steps": n} if n else {}) for n in (3, 4, 3, None)]
    assert names[0] == names[2] != names[1]
    assert names[3].endswith("-demo-cpu")
    assert search.search(device="cpu", exclude=iter(["compile"])) == search.search(device="cpu", exclude=["compile"])
