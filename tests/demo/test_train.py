"""The training script runs whole, leaves what is shipped, and says in one sentence what it will not do."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from programs import run_program
from transformers import CLIPModel

from autotune.demo import CLIP, PIPELINE, shapes, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script leaves after 2 s a stage on 200 pictures: all the files, no skill."""
    out = tmp_path_factory.mktemp("trained") / "new" / "folder"
    stages = ["--vae-s", "2", "--clip-s", "2", "--unet-s", "2"]
    done = run_program("-m", "autotune.demo.train", out, "--pictures", "200", *stages, here=ROOT)
    assert done.returncode == 0, done.stderr
    return out


def names(folder: Path) -> set[str]:
    """Every file below a folder, by its path from there."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_script_leaves_the_files_that_are_shipped(trained: Path) -> None:
    assert names(trained / "pipeline") == names(PIPELINE)
    assert names(trained / "clip") == names(CLIP)
    assert {path.name for path in trained.iterdir()} == {"pipeline", "clip"}


def test_the_scripts_tokenizer_is_the_shipped_one(trained: Path) -> None:
    shipped = (CLIP / "tokenizer.json").read_bytes()
    assert (PIPELINE / "tokenizer" / "tokenizer.json").read_bytes() == shipped
    assert (trained / "pipeline" / "tokenizer" / "tokenizer.json").read_bytes() == shipped
    assert (trained / "clip" / "tokenizer.json").read_bytes() == shipped


def test_the_scripts_pipeline_loads_and_runs_a_step(trained: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(trained / "pipeline", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(0)
    caption = next(shapes.all_scenes()).caption
    pictures = pipeline(caption, num_inference_steps=1, generator=generator, output_type="pt").images
    assert pictures.shape == (1, 3, shapes.SIDE, shapes.SIDE)
    assert torch.isfinite(pictures).all()


def test_the_scripts_models_have_the_shapes_of_the_shipped_ones(trained: Path) -> None:
    for kind, made, shipped in (
        (DiffusionPipeline, trained / "pipeline", PIPELINE),
        (CLIPModel, trained / "clip", CLIP),
    ):
        assert shapes_of(kind.from_pretrained(made)) == shapes_of(kind.from_pretrained(shipped))


def shapes_of(model: CLIPModel | DiffusionPipeline) -> dict[str, tuple[int, ...]]:
    """Each weight's name and shape."""
    parts = {"": model} if isinstance(model, CLIPModel) else model.components
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    return {
        f"{name}.{key}": tuple(weight.shape)
        for name, module in modules.items()
        for key, weight in module.state_dict().items()
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--vae-s", "0"], "argument --vae-s: wants a number of seconds above 0, not '0'"),
        (["--clip-s", "soon"], "argument --clip-s: wants a number of seconds above 0, not 'soon'"),
        (["--unet-s", "inf"], "argument --unet-s: wants a number of seconds above 0, not 'inf'"),
        (["--pictures", "1"], "argument --pictures: wants a whole number, 2 or more, not '1'"),
        (["--seed", "-1"], "argument --seed: wants a whole number, 0 or more, not '-1'"),
        (["--speed", "9"], "unrecognized arguments: --speed 9"),
    ],
)
def test_a_bad_argument_gets_one_sentence_and_makes_no_folder(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main([str(tmp_path / "out"), *arguments])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"python -m autotune.demo.train: {sentence}\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_in_it_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        train.main([str(tmp_path)])
    assert stopped.value.code == 2
    assert "already holds files; name a new folder" in capsys.readouterr().err
    assert names(tmp_path) == {"mine.txt"}


def test_a_file_in_the_folders_place_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(SystemExit):
        train.main([str(tmp_path / "out")])
    message = capsys.readouterr().err
    assert message.startswith(f"python -m autotune.demo.train: cannot write to '{tmp_path / 'out'}': ")
    assert message.count("\n") == 1


def test_help_names_every_option_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option, default in (
        ("vae-s", 400.0),
        ("clip-s", 900.0),
        ("unet-s", 2500.0),
        ("pictures", 20000),
        ("seed", 0),
    ):
        assert f"--{option}" in text
        assert f"(default: {default})" in text


def test_no_caption_is_too_long_for_the_text_encoder_and_no_two_look_alike_to_it() -> None:
    captions = [scene.caption for scene in shapes.all_scenes()]
    tokens = train.new_tokenizer()(captions).input_ids
    assert max(map(len, tokens)) <= train.CONTEXT
    assert len(set(map(tuple, tokens))) == len(captions)


def test_every_caption_word_but_triangle_is_one_token() -> None:
    tokenizer = train.new_tokenizer()
    words = {word for scene in shapes.all_scenes() for word in scene.caption.split()}
    assert {word for word in words if len(tokenizer.tokenize(word)) > 1} == {"triangle"}


def test_a_pictures_caption_row_holds_its_own_caption() -> None:
    tokenizer = train.new_tokenizer()
    data = train.make_data(20, 3, tokenizer)
    _, captions = shapes.dataset(20, 3)
    read = tokenizer.batch_decode(data.tokens[data.captions], skip_special_tokens=True)
    assert read == captions
    assert tokenizer.decode(data.tokens[0], skip_special_tokens=True) == ""


def test_training_lowers_the_loss() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        inputs = torch.randn(64, 4)

    def loss() -> torch.Tensor:
        return ((model(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean()

    before = loss().item()
    average = train.fit(model, loss, seconds=0.5, rate=0.1, name="line")
    assert loss().item() < before / 2
    assert ((average(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean().item() < before / 2


def test_the_shortest_stage_still_makes_a_step() -> None:
    model = torch.nn.Linear(1, 1)
    before = model.weight.item()
    train.fit(model, lambda: model(torch.ones(1, 1)).sum(), seconds=1e-12, rate=0.1, name="blink")
    assert model.weight.item() != before


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    model = torch.nn.Linear(1, 1)
    nowhere = torch.full((1, 1), torch.nan)
    with pytest.raises(RuntimeError, match="broken: the loss became nan at step 1"):
        train.fit(model, lambda: model(nowhere).sum(), seconds=1, rate=0.1, name="broken")


def test_the_module_runs_as_a_program() -> None:
    done = run_program("-m", "autotune.demo.train", "--help", here=ROOT, late={"COLUMNS": "100"})
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m autotune.demo.train ")
