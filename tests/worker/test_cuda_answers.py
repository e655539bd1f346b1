"""While libraries load, torch.cuda answers what the card would, and CUDA is not started. The card is a fake."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CPU, make_target

from autotune.device import Device
from autotune.job import MeasureJob, ScoreJob
from autotune.worker import fork_server, forked
from autotune.worker.cuda_answers import answered

CARD = Device(
    kind="cuda",
    uuid="GPU-1",
    name="NVIDIA GeForce RTX 4090",
    memory_bytes=25_250_627_584,
    compute_capability=(8, 9),
    multiprocessors=128,
)
# What importing transformers and torchao asks (torchao/utils.py, torch/utils/_triton.py), and the usual ways to ask.
LIBRARY = """
import torch
from torch.cuda import get_device_capability, get_device_properties as kept
is_cuda = torch.cuda.is_available() and torch.cuda.device_count() > 0
newer_than_89 = torch.cuda.get_device_capability() >= (8, 9)
hopper = get_device_capability(torch.device("cuda")) >= (9, 0)
properties = torch.cuda.get_device_properties(torch.cuda.current_device())
seen = (torch.cuda.get_device_name("cuda:0"), properties.total_memory, properties.multi_processor_count)
bf16 = torch.cuda.is_bf16_supported()
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A torch that was built for CUDA, whose driver is a list of what has started it."""
    calls: list[str] = []

    own: dict[str, Any] = {"__name__": "torch.cuda", "torch": torch}
    exec("def real(answer): return lambda *args: (torch.cuda._lazy_init(), answer)[1]", own)
    whole = SimpleNamespace(name=CARD.name, major=8, minor=9, warp_size=32, total_memory=CARD.memory_bytes)
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: calls.append("started"))
    answers = {"is_available": True, "device_count": 1, "current_device": 0, "get_device_properties": whole}
    for name, answer in (answers | {"get_device_capability": (8, 9), "get_device_name": CARD.name}).items():
        monkeypatch.setattr(torch.cuda, name, own["real"](answer))
    return calls


def load(code: str) -> SimpleNamespace:
    module = {"__name__": "some_library"}
    exec(code, module)
    return SimpleNamespace(**module)


def test_what_libraries_ask_while_they_load_is_answered_without_starting_cuda(started: list[str]) -> None:
    with answered([CARD]) as starters:
        found = load(LIBRARY)
    assert (started, starters) == ([], [])
    assert (found.is_cuda, found.newer_than_89, found.hopper, found.bf16) == (True, True, False, True)
    assert found.seen == (CARD.name, CARD.memory_bytes, 128)


def test_a_function_or_an_answer_that_a_library_keeps_asks_torch_afterwards(started: list[str]) -> None:
    with answered([CARD]):
        found = load(LIBRARY)
    assert started == []
    assert found.get_device_capability() == (8, 9)
    assert found.kept(0).warp_size == 32
    assert found.properties.warp_size == 32
    assert started == ["started"] * 3
    assert torch.cuda.get_device_capability() == (8, 9), "torch's own functions are back"
    assert len(started) == 4


@pytest.mark.parametrize(
    "question",
    [
        "torch.cuda.get_device_properties(0).warp_size",  # the probe does not keep it
        "torch.cuda.get_device_properties(1)",  # no such card
        "torch.cuda._lazy_init()",  # as torch.zeros(1, device='cuda') does
    ],
)
def test_a_question_without_an_answer_goes_to_torch_and_its_asker_is_named(started: list[str], question: str) -> None:
    with answered([CARD]) as starters:
        load(f"import torch\n{question}")
    assert started == ["started"]
    assert starters == ["some_library"]


@pytest.mark.parametrize("cards", [[], [CARD]])
def test_a_torch_without_cuda_and_an_unknown_card_are_answered_by_torch(
    monkeypatch: pytest.MonkeyPatch, cards: list[Device]
) -> None:
    if cards:
        monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "torch's own")
    with answered(cards):
        assert torch.cuda.is_available() == "torch's own"


def test_the_card_is_the_jobs_own_or_the_only_one_that_nvml_tells_of(monkeypatch: pytest.MonkeyPatch) -> None:
    on_card = MeasureJob(target=make_target(CARD), values={}, pictures=False)
    assert fork_server._cards(on_card) == [CARD]
    score = ScoreJob(images="", baseline="", prompts=("a",), scorer=None)
    on_processor = MeasureJob(target=make_target(CPU), values={}, pictures=False)
    other = CARD.model_copy(update={"index": 1, "uuid": "GPU-2"})
    for cards, expected in (((), []), ((CARD,), [CARD]), ((CARD, other), [])):
        monkeypatch.setattr(
            "autotune.devices.cuda.find_nvidia_gpus", lambda cards=cards: SimpleNamespace(devices=cards)
        )
        assert fork_server._cards(score) == fork_server._cards(on_processor) == expected


@pytest.mark.parametrize("opened", ["/dev/nvidia-uvm", "/dev/kfd", "/dev/dxg"])  # NVIDIA, AMD, either under WSL2
def test_without_an_open_file_of_a_driver_there_is_no_context(monkeypatch: pytest.MonkeyPatch, opened: str) -> None:
    monkeypatch.setattr(forked.Path, "iterdir", lambda path: iter([forked.Path("/proc/self/task/1")]))
    monkeypatch.setattr(forked.Path, "read_text", lambda path: "python" if path.name == "comm" else "7f0-7f1 /dev/zero")
    assert forked.fault() is None
    monkeypatch.setattr(forked, "_open_files", lambda: iter(["/dev/null", "/dev/nvidiactl", opened]))
    assert forked.fault() == f"the libraries have opened {opened}, as for a context on a GPU"


def test_the_server_says_which_module_started_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, object]] = []

    def send(connection: object, message: dict[str, object]) -> None:
        sent.append(message)
        raise SystemExit

    monkeypatch.setattr(fork_server, "_rehearse", lambda: ([], "the libraries have asked CUDA for its devices"))
    monkeypatch.setattr(fork_server, "_send", send)
    with pytest.raises(SystemExit):
        fork_server.serve(None, ["torchao.kernel"])  # type: ignore[arg-type]
    assert sent == [{"fault": "torchao.kernel has started CUDA while it was loaded"}]
