"""The capability table: GPUs that this machine does not have, and the search space on them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import HEAVY, NO_DRIVER, check_refused, run
from searches import forked_children

from autotune.devices.specs import EVIDENCE, SPECS, find_spec
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.probe import probe
from autotune.knobs import complete
from autotune.report.terminal.machine import knobs_table
from autotune.study.space import SearchSpace
from autotune.target import Target
from autotune.tuning.probe_space import probe_space

NOT_FORKED = isolate.run


def test_every_gpu_of_the_table_is_a_complete_device_that_was_not_probed() -> None:
    assert set(SPECS) == {"v100", "t4", "a10g", "a100", "l4", "3090", "4090", "5090", "h100", "h200", "b200"}
    names = set()
    for word in SPECS:
        device = find_spec(word)
        assert (device.kind, device.evidence, device.driver) == ("cuda", (EVIDENCE,), None)
        assert device.memory_bytes > 14 * 2**30
        assert device.multiprocessors is not None
        assert 40 <= device.multiprocessors <= 170
        assert word.upper() in device.name.replace("GeForce RTX ", "")
        names.add(device.name)
    assert len(names) == len(SPECS)


def test_flash_and_cudnn_attention_begin_with_compute_capability_8() -> None:
    for word in SPECS:
        device = find_spec(word)
        assert {"efficient", "math"} <= set(device.sdpa_kernels)
        for kernel in ("flash", "cudnn"):
            assert (kernel in device.sdpa_kernels) == device.at_least(8)


def test_a_gpu_is_found_however_it_is_written() -> None:
    assert find_spec("A100") == find_spec("a100")


@pytest.mark.parametrize(("word", "meant"), [("a10", "a10g"), ("h1000", "h100"), ("49090", "4090")])
def test_an_unknown_gpu_is_refused_with_the_nearest(word: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"--device-spec {word}: .*{meant}"):
        find_spec(word)


@pytest.fixture(scope="module", autouse=True)
def shared_probes() -> Iterator[None]:
    """Equal probes are one: each loads a real pipeline in a child."""
    answers: dict[str, Target] = {}

    def once(folder: Path, *asked: object, **how: bool) -> Target:
        if repr((asked, how)) not in answers:
            answers[repr((asked, how))] = probe(folder, *asked, **how)
        return answers[repr((asked, how))]

    with forked_children(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotune.tuning.probe_space.probe", once)
        yield


@pytest.fixture(scope="module")
def demo(shared_probes: None) -> tuple[Target, SearchSpace]:
    """The demo on a T4, which this machine does not have."""
    return probe_space("demo", "pretrained", find_spec("t4"))


def test_the_space_is_that_of_the_gpu_not_of_this_machine(demo: tuple[Target, SearchSpace]) -> None:
    target, space = demo
    assert target.device == find_spec("t4")
    assert "fp16" in space.values["dtype"]
    assert "compute capability 8.0" in space.impossible["dtype", "bf16"]
    assert "flash" in space.impossible["attention", "sdpa_flash"]
    assert "68 multiprocessors" in space.impossible["compile_mode", "max-autotune"]
    assert "reduce-overhead" in space.values["compile_mode"]
    assert space.objection(complete({"offload": "model"})) is None


def test_a_space_file_restricts_the_values(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[knobs]\ndtype = ["fp32", "fp16", "bf16"]\ncompile = "off"\n')
    _, space = probe_space("demo", "pretrained", find_spec("t4"), tmp_path / "mine.toml")
    assert space.values["compile"] == ("off",)
    assert space.values["dtype"] == ("fp32", "fp16")
    assert "compute capability 8.0" in space.impossible["dtype", "bf16"]


def test_the_table_says_that_no_real_gpu_was_probed(demo: tuple[Target, SearchSpace]) -> None:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as shown:
        console.print(knobs_table(*demo))
    assert "Knobs of demo on Tesla T4" in shown.get()
    assert EVIDENCE in shown.get()


def test_a_preset_needs_no_weights_and_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a new interpreter, as a fork server of another environment would end the one that the other tests share."""
    monkeypatch.setattr(isolate, "run", NOT_FORKED)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    target, space = probe_space("sdxl", "pretrained", find_spec("a100"))
    assert target.pipeline.weights == "pretrained"
    assert target.pipeline.known.class_name == "StableDiffusionXLPipeline"
    assert "sdxl" in space.values["quantization_filter"]
    assert "bf16" in space.values["dtype"]
    assert "8.9" in space.impossible["quantization", "fp8_dynamic"]
    assert not (tmp_path / "hub").exists()


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with a torch, a diffusers and a transformers that can't be imported."""
    folder = tmp_path_factory.mktemp("trap")
    for name in HEAVY:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name} was loaded')\n")
    (folder / "pynvml.py").write_text(NO_DRIVER)
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device-spec", "a1000"], "--device-spec a1000: there is no such GPU in the table: did you mean 'a100'?"),
        (["--device-spec", "a100", "--device", "cpu"], "give one of them"),
        (["--device-spec", "a100", "--pipeline", "demoo"], "did you mean 'demo'?"),
    ],
)
def test_bad_input_is_one_sentence_before_torch_is_loaded(
    tmp_path: Path, trap: Path, words: list[str], says: str
) -> None:
    check_refused(run(tmp_path, "knobs", *words, path=trap), says)
