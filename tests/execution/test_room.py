"""A wish that surely can't fit is one sentence before any process starts."""

from pathlib import Path

import pytest
from conftest import CPU

from autotune.errors import UserError
from autotune.execution import isolate, room
from autotune.execution.probe import probe
from autotune.execution.room import require_room
from autotune.pipeline import Pipeline
from autotune.workload import Prompts, Shape, WorkloadRequest
from tests.worker.test_cuda_answers import CARD

GB = 10**9


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"size": (100_000, 100_000)}, "a call of 100000x100000@1 can't fit: its finished pictures alone take 270 GB"),
        ({"batch": 99_999_999}, "a call of 64x64@99999999 can't fit"),
        ({"also": (Shape(width=64, height=64, batch=10**9),)}, "a call of 64x64@1000000000 can't fit"),
    ],
)
def test_an_absurd_wish_is_refused_before_a_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object], said: str
) -> None:
    monkeypatch.setattr(room, "total_bytes", lambda: 64 * GB)
    monkeypatch.setattr(isolate, "run", lambda *_, **__: pytest.fail("a process was started"))
    request = WorkloadRequest(prompts=Prompts(texts=("a",)), **asked)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said) as raised:
        probe(tmp_path, Pipeline(name="unknown", source="somewhere"), CPU, request)
    assert "this machine has 64 GB" in str(raised.value)
    assert "smaller --size or --batch" in str(raised.value)


def test_a_card_is_asked_too_and_another_machines_host_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "total_bytes", lambda: 8 * GB)
    large = [Shape(width=32_768, height=32_768, batch=1)]  # 12.9 GB on the card, 29 GB on the host
    require_room(large, CARD, host=False)
    with pytest.raises(UserError, match=r"with 9 frames can.t fit.*--size, --batch or --frames"):
        require_room(large, CARD, host=False, frames=9)
    with pytest.raises(UserError, match="this machine has 8 GB"):
        require_room(large, CARD)
    with pytest.raises(UserError, match=r"RTX 4090 has 25 GB"):
        require_room([Shape(width=65_536, height=65_536, batch=1)], CARD, host=False)


def test_what_people_do_is_never_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "total_bytes", lambda: 8 * GB)
    require_room([Shape(width=4096, height=4096, batch=4), Shape(width=512, height=512, batch=128)], CARD)
    monkeypatch.setattr(room, "total_bytes", lambda: None)
    require_room([Shape(width=10**6, height=10**6, batch=1)], CPU)
