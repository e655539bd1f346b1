"""The metrics: each by its formula, each by a name that says whose weights scored, and none that cuts or guesses."""

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from autotune import demo
from autotune.demo.shapes import render, scene_of
from autotune.errors import UserError
from autotune.measure.metrics import all_metrics, find_metric, image_reward, lpips
from autotune.measure.metrics._clip import Clip, weights_digest
from autotune.measure.metrics._user import user_metric
from autotune.measure.metrics.worst_place import worst_places

PROMPTS = (
    "a large red circle at the top on a white background",
    "a small blue star at the left on a yellow background",
    "a large green square at the center on a black background",
)


def drawn(prompt: str, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.asarray(render(scene_of(prompt), random.Random(seed))))


PICTURES = [drawn(prompt) for prompt in PROMPTS]


def scores(metric: str, images: Any, prompts: Any, references: Any = (), source: str | None = None) -> Any:
    return find_metric(metric).load(source, "cpu").scores(images, prompts, references)


def test_every_metric_says_what_it_is() -> None:
    found = all_metrics()
    assert set(found) == {
        "clip_score",
        "clip_image",
        "pickscore",
        "image_reward",
        "ssim",
        "psnr",
        "lpips",
        "worst_place",
        "temporal",
    }
    for name, metric in found.items():
        assert metric.name == name
        assert metric.better in ("higher", "lower")
        assert len(metric.summary) > 20


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown metric 'pick_score': did you mean 'pickscore'\?"):
        find_metric("pick_score")


def test_right_captions_score_far_above_wrong_ones_and_black() -> None:
    right = scores("clip_score", PICTURES, PROMPTS, source="demo")
    wrong = scores("clip_score", PICTURES, PROMPTS[1:] + PROMPTS[:1], source="demo")
    black = scores("clip_score", [Image.new("RGB", (64, 64))] * 3, PROMPTS, source="demo")
    assert min(right) > 80
    assert max(wrong) < 60
    assert max(black) < 60


class Unwrapped:
    """The demo's CLIP with features as transformers 4 gave them: torchmetrics can't read the outputs of 5."""

    def __init__(self) -> None:
        self.model = CLIPModel.from_pretrained(demo.CLIP, dtype=torch.float32).eval()
        self.config = self.model.config

    def get_image_features(self, pixels: torch.Tensor) -> Any:
        return self.model.get_image_features(pixels).pooler_output

    def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.model.get_text_features(ids, mask).pooler_output

    def to(self, device: Any) -> "Unwrapped":
        return self


def process(text: Any = None, images: Any = None, **how: Any) -> Any:
    if images is not None:
        return CLIPImageProcessorPil.from_pretrained(demo.CLIP)(images=images, return_tensors="pt")
    return AutoTokenizer.from_pretrained(demo.CLIP)(text, **how)


def test_clip_score_is_torchmetrics_clip_score_for_each_picture() -> None:
    from torchmetrics.functional.multimodal.clip_score import _clip_score_update

    pixels = [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in PICTURES]
    for prompts in (PROMPTS, PROMPTS[1:] + PROMPTS[:1]):
        with torch.no_grad():
            theirs, _ = _clip_score_update(pixels, list(prompts), Unwrapped(), process)
        ours = scores("clip_score", PICTURES, prompts, source="demo")
        assert ours == pytest.approx(theirs.tolist(), abs=1e-3)
        assert min(theirs.tolist()) < 0 or prompts == PROMPTS, "scores below 0 are compared, too: none is clamped"


def test_a_score_does_not_depend_on_what_is_scored_beside_it() -> None:
    many = [drawn(PROMPTS[i % 3], seed=i) for i in range(20)]
    together = scores("clip_score", many, [PROMPTS[i % 3] for i in range(20)], source="demo")
    alone = [scores("clip_score", [many[i]], [PROMPTS[i % 3]], source="demo")[0] for i in (0, 17)]
    assert [together[0], together[17]] == pytest.approx(alone, abs=1e-3)


@pytest.fixture(scope="module")
def clip_of_77(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP of random weights that reads 77 tokens, as the published ones do."""
    folder = tmp_path_factory.mktemp("clip77")
    shutil.copytree(demo.CLIP, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((demo.CLIP / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 77
    torch.manual_seed(0)
    CLIPModel(CLIPConfig.from_dict(config)).save_pretrained(folder)
    return str(folder)


def test_a_prompt_is_never_cut(clip_of_77: str) -> None:
    """Promise 16: torchmetrics drops 9 points on "x " * 76, where the end token is cut off. Here it is refused."""
    clip = Clip(clip_of_77)
    tokens = {n: len(clip.tokenizer("x " * n).input_ids) for n in (74, 75, 76)}
    assert tokens == {74: 76, 75: 77, 76: 78}
    one = clip.cosines(PICTURES[:1], ["x " * 74])
    assert torch.isfinite(clip.cosines(PICTURES[:1], ["x " * 75])).all()
    assert torch.isfinite(one).all()
    for load in (clip.check_prompts, lambda prompts: clip.cosines(PICTURES[:1], prompts)):
        with pytest.raises(UserError, match=r"has 78 tokens, the scorer reads 77: shorten it"):
            load(["x " * 76])


def test_the_identity_is_that_of_the_weights(clip_of_77: str, tmp_path: Path) -> None:
    """Promise 17."""
    assert Clip("demo").identity == f"demo@{weights_digest(demo.CLIP)}"
    assert Clip(clip_of_77).identity.split("@") == [Path(clip_of_77).name, weights_digest(Path(clip_of_77))]
    snapshot = tmp_path / "snapshots" / "0123456789abcdef0123"
    shutil.copytree(demo.CLIP, snapshot)
    before = Clip(str(snapshot)).identity
    assert "@0123456789ab:" in before
    weights = load_file(snapshot / "model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, snapshot / "model.safetensors", metadata={"format": "pt"})
    assert Clip(str(snapshot)).identity != before


def spoiled(folder: Path, how: str) -> str:
    shutil.copytree(demo.CLIP, folder)
    weights = folder / "model.safetensors"
    if how == "kind":
        (folder / "config.json").write_text('{"model_type": "bert"}')
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "no weights":
        weights.unlink()
    elif how == "a weight":
        kept = {name: value for name, value in load_file(weights).items() if name != "visual_projection.weight"}
        save_file(kept, weights, metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("kind", "is no CLIP model: it is a bert model"),
        ("no config", "is no CLIP model: it is no model at all"),
        ("no weights", "can't be loaded"),
        ("a weight", "lacks weights"),
    ],
)
def test_a_model_that_would_score_by_random_weights_is_refused(tmp_path: Path, how: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Clip(spoiled(tmp_path / "clip", how))


def test_clip_metrics_of_a_study_without_a_scorer_ask_for_a_model() -> None:
    for name in ("clip_score", "clip_image"):
        with pytest.raises(UserError, match=f"--metric {name}=openai/clip-vit-large-patch14"):
            find_metric(name).load(None, "cpu")


def test_clip_image_is_100_for_the_same_picture_and_far_less_for_another_of_any_size() -> None:
    large = [picture.resize((96, 128)) for picture in PICTURES]
    same = scores("clip_image", PICTURES, PROMPTS, PICTURES, source="demo")
    other = scores("clip_image", PICTURES, PROMPTS, large[1:] + large[:1], source="demo")
    assert same == pytest.approx([100.0] * 3, abs=1e-3)
    assert max(other) < 60


def test_pickscore_is_the_cosine_times_the_models_own_scale(clip_of_77: str) -> None:
    scale = float(load_file(Path(clip_of_77) / "model.safetensors")["logit_scale"].exp())
    cosine = scores("clip_score", PICTURES, PROMPTS, source=clip_of_77)
    expected = [scale * value / 100 for value in cosine]
    assert scores("pickscore", PICTURES, PROMPTS, source=clip_of_77) == pytest.approx(expected, abs=1e-5)


def test_equal_pictures_are_exactly_alike_and_others_are_not() -> None:
    a, b = PICTURES[:2]
    ssim, psnr_db = (scores(name, [a, a], PROMPTS[:2], [a, b]) for name in ("ssim", "psnr"))
    assert (ssim[0], psnr_db[0]) == (1.0, None)
    assert ssim[1] < 0.9
    assert psnr_db[1] < 20


@pytest.mark.parametrize(("across", "place"), [("rows", "row"), ("columns", "column")])
def test_the_worst_place_finds_a_dark_band_that_the_mean_does_not_show(across: str, place: str) -> None:
    """A band of 4 % between two tiles, 60 levels darker."""
    rng = np.random.default_rng(0)
    reference = rng.integers(100, 200, (100, 150, 3), dtype=np.uint8)
    banded = reference.copy()
    banded[(slice(48, 52), slice(None)) if across == "rows" else (slice(None), slice(72, 78))] -= 60
    pair = [Image.fromarray(banded)], [Image.fromarray(reference)]
    [found] = worst_places(*pair)
    assert getattr(found, place) == pytest.approx(60)
    assert found.cell == pytest.approx(60 * (4 if across == "rows" else 6) / 16, abs=8)
    assert scores("worst_place", pair[0], ["a"], pair[1]) == (max(found),)
    assert scores("ssim", pair[0], ["a"], pair[1])[0] > 0.9
    assert worst_places(pair[1], pair[1]) == [(0, 0, 0)]


def test_a_bad_cell_at_the_edge_counts_with_the_pixels_that_it_has() -> None:
    reference = np.full((40, 40, 3), 100, np.uint8)
    spoilt = reference.copy()
    spoilt[32:, 32:] += 50
    [found] = worst_places([Image.fromarray(spoilt)], [Image.fromarray(reference)])
    assert found == pytest.approx((50, 10, 10))


def test_psnr_is_its_formula() -> None:
    one = np.full((16, 16, 3), 100, np.uint8)
    (found,) = scores("psnr", [Image.fromarray(one)], ["a"], [Image.fromarray(one + 10)])
    assert found == pytest.approx(20 * np.log10(255 / 10))


@pytest.mark.parametrize("name", ["ssim", "psnr"])
def test_pictures_of_two_sizes_are_not_compared_by_pixels(name: str) -> None:
    with pytest.raises(UserError, match=r"the reference of picture 0 is 32x16, the picture 64x64.*clip_image"):
        scores(name, PICTURES[:1], PROMPTS[:1], [Image.new("RGB", (32, 16))])


def alexnet(*args: Any, **kwargs: Any) -> torch.nn.Sequential:
    """The layers of torchvision's AlexNet up to the last that LPIPS reads, with random weights."""
    torch.manual_seed(0)
    conv, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d
    layers = [conv(3, 64, 11, 4, 2), relu(), pool(3, 2), conv(64, 192, 5, padding=2), relu(), pool(3, 2)]
    layers += [conv(192, 384, 3, padding=1), relu(), conv(384, 256, 3, padding=1), relu()]
    return torch.nn.Sequential(*layers, conv(256, 256, 3, padding=1), relu())


@pytest.fixture
def with_alexnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if torchvision and its weights were here."""
    from torchmetrics.functional.image import lpips as theirs

    monkeypatch.setattr(lpips, "find_spec", lambda name: object())
    monkeypatch.setattr(theirs, "_get_tv_model_features", alexnet)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / lpips.WEIGHTS
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def test_lpips_is_0_for_the_same_picture_and_grows_with_the_difference(with_alexnet: Path) -> None:
    near = Image.blend(PICTURES[0], PICTURES[1], 0.1)
    judge = find_metric("lpips").load(None, "cpu")
    same, close, far = judge.scores([PICTURES[0]] * 3, PROMPTS, [PICTURES[0], near, PICTURES[1]])
    assert same == 0
    assert 0 < close < far
    before = judge.identity
    with_alexnet.write_bytes(b"other weights")
    assert find_metric("lpips").load(None, "cpu").identity != before


def test_lpips_refuses_pictures_that_alexnet_can_not_see(with_alexnet: Path) -> None:
    tiny = Image.new("RGB", (16, 64))
    with pytest.raises(UserError, match="lpips needs pictures of 32 pixels a side, not 16x64"):
        scores("lpips", [tiny], PROMPTS[:1], [tiny])


def test_lpips_says_what_is_missing_and_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for found, says in (
        (None, "pip install torchvision"),
        (object(), "put https://download.pytorch.org/models/alexnet"),
    ):
        monkeypatch.setattr(lpips, "find_spec", lambda name, found=found: found)
        with pytest.raises(UserError, match=says):
            find_metric("lpips").load(None, "cpu")
    assert list(tmp_path.iterdir()) == []


class FakeReward:
    """The package's model, with its own calls: it reads a file, and its tokenizer is BERT's."""

    blip = SimpleNamespace(tokenizer=lambda prompt: SimpleNamespace(input_ids=[0, *prompt.split(), 0]))

    def score(self, prompt: str, image: str) -> float:
        return len(prompt) + float(np.asarray(Image.open(image)).mean())


@pytest.fixture
def with_image_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = ModuleType("ImageReward")
    package.load = lambda name, device, download_root: FakeReward()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ImageReward", package)
    monkeypatch.setattr(image_reward, "find_spec", lambda name: object())
    for name in ("ImageReward.pt", "med_config.json"):
        (tmp_path / name).write_text("weights")
    return tmp_path


def test_image_reward_scores_each_picture_with_its_prompt(with_image_reward: Path) -> None:
    found = scores("image_reward", PICTURES, PROMPTS, source=str(with_image_reward))
    expected = [len(p) + float(np.asarray(i).mean()) for p, i in zip(PROMPTS, PICTURES, strict=True)]
    assert found == pytest.approx(expected)


def test_image_reward_refuses_what_its_package_would_cut(with_image_reward: Path) -> None:
    with pytest.raises(UserError, match="has 36 tokens, image_reward reads 35"):
        scores("image_reward", PICTURES[:1], ["x " * 34], source=str(with_image_reward))


def test_image_reward_says_what_is_missing(with_image_reward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (with_image_reward / "med_config.json").unlink()
    with pytest.raises(UserError, match=r"hf download THUDM/ImageReward med_config\.json --local-dir"):
        find_metric("image_reward").load(str(with_image_reward), "cpu")
    monkeypatch.setattr(image_reward, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install image-reward"):
        find_metric("image_reward").load(None, "cpu")


def own(folder: Path, body: str) -> str:
    (folder / "mine.py").write_text(f"def bright(images, prompts, references):\n    {body}\n")
    return f"{folder / 'mine.py'}:bright"


def test_a_users_function_scores_and_is_known_by_its_files_digest(tmp_path: Path) -> None:
    word = own(tmp_path, "return [image.getpixel((0, 0))[0] + len(p) for image, p in zip(images, prompts)]")
    metric = user_metric(word)
    judge = metric.load(None, "cpu")
    expected = [p.getpixel((0, 0))[0] + len(t) for p, t in zip(PICTURES, PROMPTS, strict=True)]
    assert judge.scores(PICTURES, PROMPTS, PICTURES) == tuple(expected)
    assert (metric.name, metric.better, judge.identity.split("@")[0]) == ("user_bright", "higher", "mine.py:bright")
    own(tmp_path, "return [0] * len(images)\nbright.better = 'lower'")
    changed = user_metric(word)
    assert changed.load(None, "cpu").identity != judge.identity
    assert changed.better == "lower"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return [1.0]", "returned 1 numbers for 3 pictures"),
        ("return [float('nan')] * 3", "not finite"),
        ("return 'abc'", "not a list of numbers"),
        ("return None", "returned NoneType"),
    ],
)
def test_a_users_function_that_gives_no_scores_is_refused(tmp_path: Path, body: str, says: str) -> None:
    judge = user_metric(own(tmp_path, body)).load(None, "cpu")
    with pytest.raises(UserError, match=says):
        judge.scores(PICTURES, PROMPTS, PICTURES)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("mine.py", "takes FILE.py:FUNCTION"),
        ("mine.py:two words", "takes FILE.py:FUNCTION"),
        ("gone.py:bright", "there is no file"),
        ("mine.py:dark", "has no function dark"),
        ("broken.py:bright", "can't be imported: ZeroDivisionError"),
        ("wrong.py:bright", "must be higher or lower"),
    ],
)
def test_a_users_file_that_can_not_be_used_is_one_sentence(tmp_path: Path, word: str, says: str) -> None:
    own(tmp_path, "return []")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "wrong.py").write_text("def bright(*a): pass\nbright.better = 'best'\n")
    with pytest.raises(UserError, match=says):
        user_metric(str(tmp_path / word))


def test_metrics_are_values() -> None:
    metric = find_metric("ssim")
    with pytest.raises(AttributeError):
        metric.better = "lower"  # type: ignore[misc]
    assert replace(metric, better="lower") != metric
