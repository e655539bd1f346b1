"""The published figures: every line can be read, and the nearest setting is found, never a mixture of two."""

import csv

import pytest

from autotune.research.published import RESULTS, Figure, figures, find_figures, is_of_gpu, is_of_pipeline, tables

FAST = "fast_diffusion ladder"
TOME = ("fp16 vanilla attention", "ToMe", "ToMe + xFormers")


def found(table: str, *configs: str, pipeline: str = "demo", side: int = 64, batch: int = 1, device: str = "") -> list:
    known = find_figures(table, configs, pipeline=pipeline, width=side, height=side, batch=batch, device=device)
    return [known.get(config) for config in configs]


def test_every_line_is_a_figure_or_says_why_there_is_none() -> None:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        assert len(figures()) == sum(1 for _ in csv.DictReader(file)) > 300
    for figure in figures():
        assert figure.number is None or figure.number > 0
        assert figure.number is not None or figure.value in ("OOM", "unsupported"), figure


def test_no_figure_is_there_twice() -> None:
    assert len({(f.table, f.setting, f.config) for f in figures()}) == len(figures())


def test_the_tables_are_those_of_the_tutorials() -> None:
    assert set(tables()) == {FAST, "memory tutorial ladder", "torch2.0 benchmark", "ToMe benchmark"}
    assert len(tables()[FAST]) == 6


def test_a_figure_has_its_gpu_setting_and_unit() -> None:
    (first,) = found(FAST, "fp32, vanilla attention", pipeline="sdxl", side=1024)
    assert str(first) == "7.36 s"
    assert str(first.setting) == "sdxl-txt2img on A100 80GB 400W, 1024x1024, batch 1, 30 steps"


@pytest.mark.parametrize(
    ("pipeline", "side", "batch", "device", "setting"),
    [
        ("sd15", 512, 1, "", "V100, 512x512, batch 1"),
        ("sd15", 512, 10, "", "A100, 512x512, batch 10"),
        ("sd15", 768, 4, "", "A100, 768x768, batch 4"),
        ("sd15", 768, 4, "Tesla V100-SXM2-16GB", "V100, 768x768, batch 4"),
        ("sd15", 512, 1, "NVIDIA A100-SXM4-80GB", "V100, 512x512, batch 1"),  # the same size comes first
        ("demo", 64, 1, "", "A100, 768x768, batch 1"),
        ("demo", 64, 3, "", "A100, 512x512, batch 10"),  # nothing alike: the table's first
    ],
)
def test_the_nearest_setting_is_found(pipeline: str, side: int, batch: int, device: str, setting: str) -> None:
    answers = found("ToMe benchmark", *TOME, pipeline=pipeline, side=side, batch=batch, device=device)
    assert {str(figure.setting) for figure in answers} == {f"sd-txt2img on {setting}"}


def test_all_figures_of_a_ladder_are_of_one_gpu() -> None:
    for batch in (1, 2, 4, 8, 10):
        answers = found("ToMe benchmark", *TOME, pipeline="sd15", side=768, batch=batch)
        assert len({figure.setting for figure in answers}) == 1


def test_what_was_not_published_is_not_made_up() -> None:
    assert found(FAST, "bf16 + SDPA + a new invention") == [None]
    assert found("no such table", "fp32") == [None]


def test_speedups_are_of_speeds_whatever_the_unit() -> None:
    def figure(metric: str, value: str) -> Figure:
        fields = {"table": "t", "gpu": "g", "pipeline": "p", "resolution": 512, "batch": 1, "steps": None}
        return Figure.parse({**fields, "config": "c", "metric": metric, "value": value}, "a figure")

    assert figure("latency_s", "2").speedup_over(figure("latency_s", "6")) == 3
    assert figure("iterations_per_s", "6").speedup_over(figure("iterations_per_s", "2")) == 3
    assert figure("seconds_per_iteration", "2").speedup_over(figure("seconds_per_iteration", "6")) == 3
    assert figure("latency_s", "2").speedup_over(figure("latency_s", "OOM")) is None
    assert figure("latency_s", "OOM").speedup_over(figure("latency_s", "6")) is None
    assert figure("latency_s", "2").speedup_over(figure("iterations_per_s", "6")) is None
    assert str(figure("latency_s", "OOM")) == "OOM"
    assert str(figure("iterations_per_s", "6.5")) == "6.5 it/s"


def test_names_of_gpus_and_pipelines_are_told_apart() -> None:
    assert is_of_gpu("RTX 4090", "NVIDIA GeForce RTX 4090")
    assert not is_of_gpu("RTX 4090", "NVIDIA GeForce RTX 3090")
    assert is_of_gpu("A100 80GB 400W", "NVIDIA A100-SXM4-40GB")
    assert not is_of_gpu("Titan RTX", "NVIDIA GeForce RTX 3090")
    assert not is_of_gpu("T4", "NVIDIA RTX T400")
    assert is_of_pipeline("sdxl-txt2img", "sdxl")
    assert is_of_pipeline("sd-txt2img", "sd15")
    assert is_of_pipeline("sd15-img2img", "sd15-img2img")
    assert not is_of_pipeline("sd15-img2img", "sd15")
    assert not is_of_pipeline("sd15-txt2img", "sdxl")
