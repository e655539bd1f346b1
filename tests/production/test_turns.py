"""Calls of one pipe from several threads: logged where they overlap, in turn with thread_safe=True. So is loading."""

import contextlib
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import logged_warnings
from loaded import UNET, loaded
from tiny_pipes import draw

from autotune.production.turns import Turns


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("turns")


def most_at_once(turns: Turns, count: int = 4) -> int:
    """The most calls that ran at the same time. Each waits for the others to begin, but not for long."""
    running, most, all_began = set[int](), [0], threading.Barrier(count)

    def call() -> None:
        with turns.take():
            running.add(threading.get_ident())
            with contextlib.suppress(threading.BrokenBarrierError):
                all_began.wait(timeout=0.2)
            most[0] = max(most[0], len(running))
            running.discard(threading.get_ident())

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most[0]


def test_thread_safe_calls_wait_for_one_another(caplog: pytest.LogCaptureFixture) -> None:
    assert most_at_once(Turns(thread_safe=True)) == 1
    assert logged_warnings(caplog) == []


def test_overlapping_calls_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    turns = Turns(thread_safe=False)
    assert most_at_once(turns) > 1
    assert most_at_once(turns) > 1
    [said] = logged_warnings(caplog)
    assert "two calls of this pipe overlap" in said
    assert "thread_safe=True" in said


@pytest.mark.parametrize("thread_safe", [True, False])
def test_a_call_that_fails_or_calls_again_blocks_nobody(thread_safe: bool, caplog: pytest.LogCaptureFixture) -> None:
    turns = Turns(thread_safe=thread_safe)
    with pytest.raises(KeyboardInterrupt), turns.take():
        raise KeyboardInterrupt
    for _ in range(2):
        with turns.take():
            pass
    assert logged_warnings(caplog) == []
    if thread_safe:
        with turns.take(), turns.take():
            pass


def test_four_threads_load_and_draw_the_same_picture(root: Path) -> None:
    expected = draw(loaded(UNET, root), UNET, num_inference_steps=1)
    seen: list[bool] = []

    def load_and_draw(number: int) -> None:
        folder = root / str(number)
        folder.mkdir()
        pipe = loaded(UNET, root, into=folder, thread_safe=True)
        seen.append(np.array_equal(draw(pipe, UNET, num_inference_steps=1), expected))

    threads = [threading.Thread(target=load_and_draw, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 4
