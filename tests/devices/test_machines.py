"""The made-up machines of tests/machines.py: they answer as the real modules would, by name, type and error."""

import inspect
from collections.abc import Callable

import machines
import pynvml
import pytest
import torch


def test_the_fake_has_the_real_modules_calls() -> None:
    names = [name for name in vars(machines.FakeNvml) if name.startswith("nvml")]
    assert len(names) > 20
    for name in names:
        theirs = inspect.signature(getattr(pynvml, name))
        mine = list(inspect.signature(getattr(machines.FakeNvml, name)).parameters)
        assert mine[1:] == list(theirs.parameters), name


def test_what_is_patched_is_there_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: getattr(torch.cuda, name, None) for name in dir(torch.cuda)}
    machines.gb10().install(monkeypatch)
    changed = [name for name in dir(torch.cuda) if getattr(torch.cuda, name) is not before.get(name)]
    assert len(changed) >= 15
    assert None not in [before[name] for name in changed]


@pytest.mark.parametrize("build", machines.ALL.values())
def test_a_process_holds_what_it_allocates(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], machines.Machine]
) -> None:
    machine = build()
    _, cuda = machine.install(monkeypatch)
    card = cuda.card("cuda:0")
    cuda.allocate(2**30)
    assert (card.reserved, card.allocated) == (2**30, 0)
    assert torch.cuda.max_memory_reserved("cuda") == 2**30
    free, total = torch.cuda.mem_get_info(0)
    assert total - free == card.driver_bytes + sum(card.graphics.values()) + machines.CONTEXT_BYTES + 2**30


def test_cuda_counts_the_fastest_card_first_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = machines.two_cards().install(monkeypatch)
    assert [card.name[-4:] for card in cuda.visible] == ["4090", "3060"]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert [card.name[-4:] for card in cuda.visible] == ["3060", "4090"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-4090")
    assert [card.name[-4:] for card in cuda.visible] == ["4090"]


def test_a_job_of_slurm_sees_its_own_card_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, cuda = machines.t4_slurm().install(monkeypatch)
    assert nvml.nvmlDeviceGetCount() == 4
    with pytest.raises(pynvml.NVMLError_NoPermission):
        nvml.nvmlDeviceGetHandleByIndex(0)
    assert cuda.visible == [nvml.nvmlDeviceGetHandleByIndex(2)]
