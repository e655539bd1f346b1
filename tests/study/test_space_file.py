"""Space files: what is read, what is refused, and the ones that come with autotune."""

from pathlib import Path

import pytest
from conftest import CPU, gpu, make_target

from autotune.errors import UserError
from autotune.knobs import complete
from autotune.study.space import make_space
from autotune.study.space_file import SHIPPED, SpaceFile, read_space_file, shipped_space_file

DEVICES = (CPU, gpu(7, 0, multiprocessors=80), gpu(7, 5, multiprocessors=40), gpu(8, 9), gpu(9, 0))
SHIPPED_FILES = sorted(path.name for folder in SHIPPED if folder.is_dir() for path in folder.glob("*.toml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "my.toml"
    path.write_text(text)
    return path


def test_a_space_file_is_read_whole(tmp_path: Path) -> None:
    file = read_space_file(
        written(
            tmp_path,
            """
            description = "mine"
            [knobs]
            dtype = "bf16"
            tome_ratio = [0.0, 0.33]
            qkv_fusion = true
            steps = ["workload", 12]
            [[recipes]]
            name = "fast"
            values = { dtype = "bf16", steps = 12 }
            """,
        )
    )
    assert file.description == "mine"
    assert file.knobs == {
        "dtype": ("bf16",),
        "tome_ratio": (0.0, 0.33),
        "qkv_fusion": (True,),
        "steps": ("workload", 12),
    }
    assert [(recipe.name, recipe.values) for recipe in file.recipes] == [("fast", {"dtype": "bf16", "steps": 12})]
    types = [type(value) for values in file.knobs.values() for value in values]
    assert types == [str, float, float, bool, str, int]


def test_an_empty_space_file_is_every_value_of_every_knob(tmp_path: Path) -> None:
    file = read_space_file(written(tmp_path, ""))
    assert file == SpaceFile()
    made = make_space(make_target(gpu(9, 0)), file, fix={}, exclude=(), baseline=complete({}))
    assert made.values["dtype"] == ("fp32", "fp16", "bf16")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[nobs]\ndtype = 'bf16'", "'nobs' is unknown, did you mean 'knobs'?"),
        ("[knobs]\ndtpe = 'bf16'", "unknown knob 'dtpe': did you mean 'dtype'?"),
        ("[knobs]\ndtype = ['fp32', 'bf61']", "dtype can't be 'bf61': did you mean 'bf16'?"),
        ("[knobs]\ntome_ratio = [0.0, 0.9]", "tome_ratio can't be 0.9: "),
        ("[knobs]\nsteps = 0", "steps can't be 0: "),
        ("[knobs]\nqkv_fusion = 1", "qkv_fusion can't be 1: "),
        ("[knobs]\ndtype = [['fp32']]", "knobs.dtype.0"),
        ("[knobs]\ndtype = { a = 1 }", "knobs.dtype.0"),
        ("[knobs]\nsteps = 2026-11-21", "knobs.steps.0"),
        ("[knobs\n", "can't be read: "),
        ("knobs = 3", "knobs"),
        ("knobs = 'dtype'", "knobs"),
        ("[[knobs]]\ndtype = 'bf16'", "knobs"),
        ("recipes = 3", "recipes"),
        ("[[recipes]]\nvalues = { dtype = 'bf16' }", "recipes.0.name: field required"),
        ("[[recipes]]\nname = 'x'\nvalues = { dtpe = 'bf16' }", "unknown knob 'dtpe'"),
        ("[[recipes]]\nname = 'x'\nvalues = { dtype = 'bf61' }", "dtype can't be 'bf61'"),
        ("[[recipes]]\nname = 'x'\nvalues = {}\nextra = 1", "recipes.0.extra: extra inputs"),
        ("description = 3", "description: "),
    ],
)
def test_a_space_file_that_cannot_be_used_is_refused_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_space_file(path)
    assert str(caught.value).startswith(f"the space file {str(path)!r}")
    assert says in str(caught.value)
    assert str(caught.value).endswith((".", "?"))
    assert "\n" not in str(caught.value)


def test_a_space_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no space file '.*none.toml'\."):
        read_space_file(tmp_path / "none.toml")
    with pytest.raises(UserError, match="can't be read"):
        read_space_file(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="can't be read"):
        read_space_file(tmp_path / "bytes.toml")


@pytest.mark.parametrize("name", SHIPPED_FILES)
def test_shipped_space_files_are_valid_and_describe_themselves(name: str) -> None:
    file = shipped_space_file(name)
    assert file.description.endswith(".")
    assert file.recipes
    assert len({recipe.name for recipe in file.recipes}) == len(file.recipes)
    assert len({complete(recipe.values) for recipe in file.recipes}) == len(file.recipes)


def test_shipped_space_files_are_those_that_presets_name() -> None:
    from autotune.pipelines import presets

    assert {preset.space for preset in presets().values()} <= set(SHIPPED_FILES)
    by_hand = {"flux.toml", "qwen-image.toml", "sdxl.toml"}  # published recipes, given by --space
    assert set(SHIPPED_FILES) == {"default.toml", "demo.toml"} | by_hand


@pytest.mark.parametrize("name", SHIPPED_FILES)
def test_every_recipe_can_run_somewhere(name: str) -> None:
    wide = ((64, 64), (512, 512))
    targets = [make_target(device, side=side, linear_shapes=wide) for device in DEVICES for side in (64, 128)]
    targets += [make_target(device, caches_blocks=True, linear_shapes=wide) for device in DEVICES]
    for recipe in shipped_space_file(name).recipes:
        config = complete(recipe.values)
        made = [make_space(t, shipped_space_file(name), fix={}, exclude=(), baseline=complete({})) for t in targets]
        assert any(one.objection(config) is None for one in made), recipe.name


def test_an_empty_list_of_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[knobs]\ndtype = []\n")
    with pytest.raises(UserError, match="dtype has an empty list: give its values, or leave the knob out"):
        read_space_file(tmp_path / "a.toml")
