"""`autotune fit`: what the weights take in each format and with each offload. Pipelines and cards are made up."""

import json
import subprocess
import sys
from typing import Any

import pytest
from conftest import CPU, gpu, make_target
from rich.console import Console
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.device import Device
from autotune.devices.specs import card_of, find_spec
from autotune.errors import UserError
from autotune.footprint import Component
from autotune.report.terminal.fit import Row, _formats, _stored_as, fit_answer, fit_data, fit_notes, fit_rows, fit_table
from autotune.target import Target
from autotune.tuning import probe_space

GB = 10**9
PARTS = (
    Component(name="text_encoder", weights=4 * GB, largest_layer=GB // 8, stored={"BF16": 4 * GB}),
    Component(
        name="unet",
        weights=12 * GB,
        largest_layer=GB // 10,
        linear=((1000, 1000, 12000),),
        cast=12 * GB,
        runs_each_step=True,
        stored={"BF16": 12 * GB},
    ),
)


def flux_like(device: Device) -> Target:
    return make_target(device, components=PARTS, linear_shapes=((1000, 1000),))


def shown(target: Target, memory_bytes: int) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(fit_table(target, memory_bytes))
    return capture.get()


def test_each_format_says_what_it_takes_and_leaves_with_each_offload() -> None:
    lines = {line.split()[0]: line for line in shown(flux_like(card_of(26 * GB)), 26 * GB).splitlines() if line.strip()}
    assert lines["fp32"].split("  ")[-1].strip() == "1.0 / 25.0"  # group: the layer that runs and the next
    assert "64.0 / no" in lines["fp32"]
    assert "48.0 / no" in lines["fp32"]
    assert "32.0 / no" in lines["bf16"]
    assert "24.0 / 2.0" in lines["bf16"]
    assert "20.0 / 6.0" in lines["float8_e4m3fn"]
    assert "12.0 / 14.0" in lines["float8_e4m3fn"]


def test_what_the_card_can_not_do_has_a_reason_and_no_figures() -> None:
    rows, faults = fit_rows(flux_like(find_spec("t4")))
    assert "compute capability 8.0" in faults["dtype=bf16"]
    assert {"dtype": "fp16"} in [row.values for row in rows]
    assert {"dtype": "bf16"} not in [row.values for row in rows]
    assert {"dtype": "fp32", "quantization": "int8_weight_only"} in [row.values for row in rows], "it overflows in fp16"
    assert "no figures for dtype=bf16" in shown(flux_like(find_spec("t4")), 16 * GB).replace("\n", " ")


def test_no_two_rows_are_called_the_same() -> None:
    target = flux_like(card_of(80 * GB))
    values = [{"dtype": "bf16"}, *({"dtype": "bf16", name: value} for name, value in _formats() if name != "dtype")]
    labels = [_stored_as(Row(row, {}, 0), target) for row in values]
    assert len(set(labels)) == len(labels)
    assert {"bf16", "int8_weight_only", "quantize_text_encoder=int8_weight_only"} <= set(labels)


def test_a_processor_has_no_offload() -> None:
    rows, _ = fit_rows(flux_like(CPU))
    assert all(list(row.needed) == ["none"] for row in rows)


@pytest.mark.parametrize(
    ("memory_gb", "says"),
    [
        (80, "The plainest config whose weights fit is the pipeline as loaded: they take 64.00 GB and leave 16.00 GB"),
        (48, "is dtype=bf16: they take 32.00 GB and leave 16.00 GB"),
        (25, "is dtype=bf16 offload=model: they take 24.00 GB and leave 1.00 GB"),
        (12, "is dtype=bf16 offload=group: they take 500 MB"),
        (0.2, "No: in no format and with no offload do the weights of demo fit in 200 MB."),
    ],
)
def test_the_answer_is_the_baseline_of_a_search(memory_gb: float, says: str) -> None:
    memory_bytes = int(memory_gb * GB)
    target = flux_like(card_of(memory_bytes))
    assert says in fit_answer(target, memory_bytes)
    assert fit_data(target, memory_bytes)["memory_bytes"] == memory_bytes


def test_the_notes_say_what_was_read_and_what_was_not_checked() -> None:
    notes = " ".join(fit_notes(flux_like(card_of(GB))))
    assert "unet 12,000.0 million, stored as BF16" in notes
    assert "the headers of its files" in notes
    assert "not checked on a GPU" in notes
    unknown = make_target(components=tuple(part.model_copy(update={"stored": {}}) for part in PARTS))
    assert "its files were not read" in " ".join(fit_notes(unknown))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The devices that the command has asked for; the pipeline is the made-up one."""
    seen: list[Any] = []

    def probe_target(word: str, weights: str, device: Any, **options: Any) -> Target:
        seen.append(device)
        return flux_like(device if isinstance(device, Device) else gpu(8, 0))

    monkeypatch.setattr(probe_space, "probe_target", probe_target)
    return seen


def fit(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["fit", "--json", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def test_a_card_is_named_or_made_up_from_its_memory(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    monkeypatch.setattr("autotune.devices.find_device", lambda word: CPU)
    made_up = fit("--vram", "25GB")
    assert (made_up["device"], made_up["memory_bytes"]) == ("a GPU of 25.0 GB", 25 * GB)
    assert made_up["baseline"] == {"dtype": "bf16", "offload": "model"}
    plain = next(row for row in made_up["formats"] if row["values"] == {"dtype": "bf16"})
    assert plain["weights_bytes"] == 32 * GB
    assert plain["left_bytes"]["model"] == GB
    assert fit("--device-spec", "4090")["memory_bytes"] == find_spec("4090").memory_bytes
    assert fit("--device-spec", "4090", "--vram", "12GB")["memory_bytes"] == 12 * GB
    assert fit("--device-spec", "4090", "--vram", "12000GB")["device"] == find_spec("4090").name
    assert [device.name for device in asked] == ["a GPU of 25.0 GB", *[find_spec("4090").name] * 3]


def test_a_card_that_is_here_keeps_its_name_under_a_limit(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    monkeypatch.setattr("autotune.devices.find_device", lambda word: gpu(8, 0))
    assert fit("--vram", "12GB")["device"] == gpu(8, 0).name
    assert asked == [None], "the first GPU, which the probe asks torch about"


def test_the_knobs_of_a_card_say_what_it_holds_and_under_a_limit_what_a_smaller_one_would(asked: list[Any]) -> None:
    titles = []
    for words in ((), ("--vram", "12GB")):
        done = CliRunner().invoke(app, ["knobs", "--device-spec", "h100", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        titles += [line.strip() for line in done.stdout.splitlines() if line.startswith("GB of weights")]
    whole = find_spec("h100").memory_bytes / 1e9
    assert titles == [f"GB of weights on the device / left of {gb:.1f} for all else" for gb in (whole, 12.0)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--vram", "much"), "'much' is not a size"),
        (("--device-spec", "4090", "--device", "cpu"), "give one of them"),
        (("--device-spec", "a1000"), "did you mean 'a100'"),
        (("--weights", "some"), "--weights takes"),
    ],
)
def test_bad_input_is_one_sentence(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        CliRunner().invoke(app, ["fit", *words], catch_exceptions=False)


def test_the_parent_loads_no_torch() -> None:
    """What it imports to answer, in an interpreter of its own."""
    modules = "autotune.report.terminal.fit, autotune.tuning.probe_space, autotune.cli"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
