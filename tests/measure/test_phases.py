"""The parts of a call: they are inside it, they leave the pipe as it was, and they compile nothing anew."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from live import loaded, picture
from programs import run_program

from autotune.measure.phases import _steps_s, phases
from autotune.worker.packages import packages_by_part


@pytest.fixture(scope="module")
def pipe() -> Any:
    return loaded()


def test_the_parts_are_inside_the_call(pipe: Any) -> None:
    longest_s, steps = [0.0], 6

    def call() -> None:
        start = time.perf_counter()
        picture(pipe, num_inference_steps=steps)
        longest_s.append(time.perf_counter() - start)

    with torch.no_grad():
        picture(pipe, num_inference_steps=2)
        found = phases(pipe, call, "cpu")
    assert len(longest_s) == 1 + 1
    assert found.text_encoding_s is not None
    assert found.vae_decode_s is not None
    assert found.denoising_step_s is not None
    assert min(found.text_encoding_s, found.vae_decode_s, found.denoising_step_s) > 0
    assert found.text_encoding_s + found.vae_decode_s < longest_s[1]
    assert found.denoising_step_s * (steps - 1) < 1.7 * longest_s[1]  # 5 intervals: 3 of them are no shorter
    assert found.denoising_step_s * steps > 0.1 * longest_s[1]  # most of a call is steps


def test_each_part_is_the_part_that_is_slow(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.4 s more in one of them are found in it, and in no other."""

    def slowed(method: Any) -> Any:
        def slow(*args: Any, **kwargs: Any) -> Any:
            time.sleep(0.4)
            return method(*args, **kwargs)

        return slow

    places = {
        "text_encoding_s": (pipe, "encode_prompt"),
        "vae_decode_s": (pipe.vae, "decode"),
        "denoising_step_s": (pipe.scheduler, "step"),
    }
    for part, (owner, name) in places.items():
        with monkeypatch.context() as patch, torch.no_grad():
            patch.setitem(vars(owner), name, slowed(getattr(owner, name)))
            found = phases(pipe, lambda: picture(pipe, num_inference_steps=3), "cpu")
        slow = {name for name in places if getattr(found, name) > 0.4}
        assert slow == {part}


def test_the_pipe_is_left_as_it_was(pipe: Any) -> None:
    def own() -> list[dict[str, Any]]:
        return [dict(vars(one)) for one in (pipe, pipe.vae)] + [{"step": vars(pipe.scheduler).get("step")}]

    vars(pipe.vae)["decode"] = pipe.vae.decode  # as a compiled one is kept
    with torch.no_grad():
        picture(pipe, num_inference_steps=2)  # a pipe's first call gives it attributes
        before = own()
        phases(pipe, lambda: picture(pipe, num_inference_steps=2), "cpu")
    after = own()
    assert [one.keys() for one in after] == [one.keys() for one in before]
    assert after[1]["decode"] is before[1]["decode"]
    assert "encode_prompt" not in vars(pipe)
    assert "step" not in vars(pipe.scheduler)
    del vars(pipe.vae)["decode"]


def test_the_pipe_is_left_as_it_was_when_a_call_fails(pipe: Any) -> None:
    def broken() -> None:
        raise RuntimeError("the pipe is broken")

    with pytest.raises(RuntimeError, match="broken"):
        phases(pipe, broken, "cpu")
    assert "encode_prompt" not in vars(pipe)
    assert "decode" not in vars(pipe.vae)
    assert "step" not in vars(pipe.scheduler)


class InPixels:
    """A pipe that reads no prompt and has no VAE; its scheduler is called so often."""

    def __init__(self, steps: int) -> None:
        self.components: dict[str, Any] = {}
        self.steps, self.scheduler = steps, SimpleNamespace(step=lambda: time.sleep(0.02))

    def __call__(self) -> None:
        for _ in range(self.steps):
            self.scheduler.step()


def test_what_a_pipe_does_not_have_takes_no_time_at_all() -> None:
    found = phases(InPixels(4), (pipe := InPixels(4)), "cpu")
    assert (found.text_encoding_s, found.vae_decode_s, found.denoising_step_s) == (None, None, None)
    found = phases(pipe, pipe, "cpu")
    assert (found.text_encoding_s, found.vae_decode_s) == (None, None)
    assert found.denoising_step_s == pytest.approx(0.02, abs=0.018)


def test_between_fewer_than_two_steps_there_is_no_time() -> None:
    assert phases(one := InPixels(1), one, "cpu").denoising_step_s is None


def test_on_a_gpu_steps_are_timed_by_events_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """One synchronisation for all steps, when they are over."""
    now_ms, log = [0.0], []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            self.at_ms = now_ms[0]
            log.append("event")

        def elapsed_time(self, later: "Event") -> float:
            return later.at_ms - self.at_ms

    def step() -> None:
        now_ms[0] += 40.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("wait"))
    pipe = InPixels(3)
    pipe.scheduler.step = step
    assert _steps_s(pipe, pipe, "cuda:0") == pytest.approx([0.04, 0.04])
    assert log == ["event"] * 3 + ["wait"]


COMPILED = """
import json, torch
from live import loaded, picture
from autotune.measure.compilation import compilation, keep_all_attempts
from autotune.measure.phases import phases
keep_all_attempts()
pipe = loaded()
pipe.vae.decode = torch.compile(pipe.vae.decode, backend="eager", dynamic=False)
def call():
    picture(pipe, num_inference_steps=3)
with torch.no_grad():
    call(); call()
    before = compilation()
    found = phases(pipe, call, "cpu")
    call()
print(json.dumps([before.graphs, before.to_json() == compilation().to_json(), found.to_json()]))
"""


def test_nothing_is_compiled_anew_by_being_timed() -> None:
    done = run_program("-c", f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})\n{COMPILED}")
    assert done.returncode == 0, done.stderr
    graphs, same, found = json.loads(done.stdout.splitlines()[-1])
    assert graphs >= 1
    assert same
    assert all(found[part] for part in ("text_encoding_s", "denoising_step_s", "vae_decode_s"))


def test_packages_are_seen_in_the_part_in_which_they_run(pipe: Any) -> None:
    with torch.no_grad():
        found = packages_by_part(pipe, lambda: picture(pipe, num_inference_steps=2))
    assert set(found) == {"text_encoding", "vae_encode", "denoising", "vae_decode"}
    assert {"torch", "transformers"} <= set(found["text_encoding"])
    assert "transformers" not in found["denoising"], "it only looks where the encoder is"
    assert {"torch", "diffusers"} <= set(found["denoising"])
    assert {"torch", "diffusers"} <= set(found["vae_decode"])
    assert found["vae_encode"] == {}, "a call without a picture to start from"
    assert all(0 < share <= 1 for shares in found.values() for share in shares.values())
    assert found["denoising"]["diffusers"] > 0.9, "whatever the denoiser calls, its own functions run meanwhile"
    assert sys.getprofile() is None, "and nothing is watched afterwards"
