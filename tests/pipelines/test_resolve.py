"""Naming a pipeline: presets, hub ids and folders, and a sentence for every word that is none of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import DEFAULT_SCORER, presets, requested_options, resolve
from autotune.pipelines.locate import ARCHITECTURES
from autotune.report.words import options
from autotune.workload import PROMPTS


def test_naming_a_pipeline_loads_no_torch() -> None:
    code = (
        "import sys; from autotune.pipelines import resolve; resolve('demo'); resolve('a/b');"
        "print(sorted({'torch', 'diffusers', 'transformers', 'huggingface_hub'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_pipeline_of_the_published_tutorials_has_a_preset() -> None:
    assert list(presets()) == [
        *("chroma", "demo", "flux-dev", "flux-kontext", "flux-schnell", "flux2-dev", "flux2-klein", "hidream"),
        *("if-stage1", "if-stage2", "if-stage3", "ltx", "lumina2", "pixart-sigma", "qwen-image", "qwen-image-edit"),
        "sana",
        *("sd15", "sd15-controlnet", "sd15-img2img", "sd15-inpaint", "sd15-lcm", "sd3.5-large", "sd3.5-medium"),
        *("sdxl", "sdxl-hyper", "sdxl-img2img", "sdxl-inpaint", "sdxl-lcm", "sdxl-lightning", "sdxl-tcd", "sdxl-turbo"),
        *("ssd-1b", "wan2.2-5b", "z-image-turbo"),
    ]


@pytest.mark.parametrize("name", [name for name, preset in presets().items() if preset.architecture is None])
def test_random_weights_are_refused_where_they_would_show_nothing(name: str) -> None:
    with pytest.raises(UserError, match="--weights random is not available for"):
        resolve(name, "random")


@pytest.mark.parametrize("name", presets())
def test_a_preset_names_files_that_are_there(name: str) -> None:
    preset = presets()[name]
    assert preset.name == name
    assert (PROMPTS / preset.prompts).is_file()
    assert preset.architecture is None or (ARCHITECTURES / preset.architecture / "model_index.json").is_file()
    assert resolve(name).source == preset.source
    assert resolve(name).scorer == preset.scorer
    for part in ("task", "controlnet", "lora", "scheduler", "scheduler_settings"):
        assert getattr(resolve(name), part) == getattr(preset, part)


def test_random_weights_have_nothing_to_score() -> None:
    pipeline = resolve("sdxl", "random")
    assert (pipeline.weights, pipeline.scorer) == ("random", None)
    assert resolve("some/pipeline", "random").scorer is None


def test_the_demo_ships_its_own_weights() -> None:
    with pytest.raises(UserError, match="demo, which has weights of its own"):
        resolve("demo", "random")


@pytest.mark.parametrize("word", ["stabilityai/sdxl-turbo", "a-b/c.d_e"])
def test_a_word_with_an_owner_is_a_hub_id(word: str) -> None:
    pipeline = resolve(word)
    assert (pipeline.name, pipeline.source, pipeline.scorer) == (word, word, DEFAULT_SCORER)


def test_a_folder_becomes_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve("mine").source == resolve("./mine").source == resolve(str(folder)).source == str(folder.resolve())


def test_a_folder_wins_over_a_hub_id_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "model_index.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name").source == str((tmp_path / "owner" / "name").resolve())


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        resolve(str(tmp_path))
    assert str(caught.value) == f"{str(tmp_path)!r} is not a diffusers pipeline: it has no model_index.json."


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (
            "deom",
            "did you mean 'demo'?",
        ),
        (
            "sd-15",
            "did you mean 'sd15'?",
        ),
        ("flux", "did you mean 'flux-dev'?"),
        ("a b/c", "known: chroma, demo,"),
    ],
)
def test_a_word_that_names_nothing_is_answered_with_the_nearest_preset(word: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(word)
    assert str(caught.value).startswith(
        f"unknown pipeline {word!r}, neither a preset, a hub id (owner/name) nor a folder"
    )
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "word", ["/no/such/folder", "./no-such-folder", "../no-such-folder", "a/b/c", "mine.safetensors"]
)
def test_a_path_to_nothing_is_not_answered_with_presets(word: str) -> None:
    with pytest.raises(UserError, match=f"^there is no folder or file '{word}': give"):
        resolve(word)


def test_a_task_a_controlnet_and_a_lora_can_be_asked_for_on_top_of_any_pipeline(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "mine.safetensors").touch()
    lora = str(tmp_path / "mine.safetensors")
    found = resolve("sd15", task="image2image", controlnet=str(tmp_path), lora=lora)
    assert (found.task, found.controlnet, found.lora) == ("image2image", str(tmp_path.resolve()), lora)
    assert requested_options(found) == {"task": "image2image", "controlnet": str(tmp_path.resolve()), "lora": lora}
    assert resolve("a/b", controlnet="c/d", lora="e/f").controlnet == "c/d"


def test_several_controlnets_have_a_weight_each_or_none() -> None:
    found = resolve("a/b", controlnet=["c/d:0.7", "e/f", "g/h:-1"])
    assert found.controlnets == {"controlnet": ("c/d", 0.7), "controlnet_2": ("e/f", None), "controlnet_3": ("g/h", -1)}
    assert found.added == {"controlnet": "c/d", "controlnet_2": "e/f", "controlnet_3": "g/h"}
    assert options(found) == ["--controlnet", "c/d:0.7", "--controlnet", "e/f", "--controlnet", "g/h:-1"]
    assert Pipeline.parse({**found.to_json(), "more_controlnets": {}}, "x").controlnets == {"controlnet": ("c/d", 0.7)}


def test_a_preset_s_controlnet_can_have_a_weight_and_another_beside_it() -> None:
    own = presets()["sd15-controlnet"].controlnet
    found = resolve("sd15-controlnet", controlnet=[f"{own}:0.5", "c/d"])
    assert found.controlnets == {"controlnet": (own, 0.5), "controlnet_2": ("c/d", None)}
    assert options(found) == ["--controlnet", f"{own}:0.5", "--controlnet", "c/d"]
    assert options(resolve("sd15-controlnet")) == []


@pytest.mark.parametrize("option", ["controlnet", "lora"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a/b:much"], "the weight after the colon is a number such as 0.8, not 'much'"),
        (["a/b:nan"], "the weight after the colon is a number such as 0.8, not 'nan'"),
        (["a/b:" + "9" * 400], "the weight after the colon is a number such as 0.8, not '999"),
        (["a/b:0.7", "a/b"], "a/b is given twice: give every one once"),
    ],
)
def test_a_weight_is_a_finite_number_and_nothing_is_given_twice(option: str, words: list[str], says: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("sd15", **{option: words})
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"--{option} a/b")


def test_what_a_preset_has_already_was_not_asked_for() -> None:
    assert (
        requested_options(resolve("sd15-lcm")) == requested_options(resolve("sd15-img2img", task="image2image")) == {}
    )


@pytest.mark.parametrize("what", ["task", "controlnet", "lora"])
@pytest.mark.parametrize("name", presets())
def test_what_a_preset_has_already_can_not_be_another(name: str, what: str) -> None:
    other = "inpainting" if what == "task" else "some/other"
    if getattr(presets()[name], what) in (None, other):
        assert requested_options(resolve(name, **{what: other})) in ({what: other}, {})
    else:
        with pytest.raises(UserError, match=f"--{what} {other}: {name} comes with another"):
            resolve(name, **{what: other})


def test_a_folder_given_by_a_relative_path_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve("sd15", lora="mine").lora == str(tmp_path.resolve() / "mine")


@pytest.mark.parametrize("word", ["", "a b", "a\nb", "x" * 200, "--", "caf\udce9"])
def test_a_variant_and_a_revision_are_names_of_the_hub(word: str) -> None:
    for option in ("variant", "revision"):
        with pytest.raises(UserError, match=f"--{option} takes the name of a {option} on the hub, not"):
            resolve("a/b", **{option: word})
    assert resolve("a/b", variant="fp16", revision="refs/pr/5").revision == "refs/pr/5"


def test_a_device_is_no_lora_and_an_empty_task_is_none(tmp_path: Path) -> None:
    for name in ("/dev/zero", "/dev/null"):
        with pytest.raises(UserError, match=r"is not a \.safetensors file"):
            resolve("sd15", lora=name)
    (tmp_path / "a.safetensors").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"is not a \.safetensors file"):
        resolve("sd15", lora=str(tmp_path / "a.safetensors"))
    with pytest.raises(UserError, match="unknown task ''"):
        resolve("sd15", task="")
