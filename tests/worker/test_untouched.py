"""A baseline that fails by its checkpoint's fault is told from a fault of autotune, with the nearest way that works."""

from pathlib import Path
from typing import Any

import pytest
from diffusers import DDIMScheduler
from loaded import UNET, target_of
from tiny import DDIM
from tiny_pipes import tiny_pipe

from autotune.job import UntouchedJob
from autotune.knobs import complete
from autotune.target import Target
from autotune.trial import Failure
from autotune.tuning.baseline import untouched_words
from autotune.worker import untouched


class Picky(DDIMScheduler):
    """A scheduler that takes no fewer than 4 steps."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        if num_inference_steps < 4:
            raise ValueError("too few steps\nfor me")
        super().set_timesteps(num_inference_steps, device)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    found = target_of(UNET, tmp_path_factory.mktemp("untouched"))
    return found.model_copy(update={"workload": found.workload.model_copy(update={"width": 32, "height": 32})})


@pytest.fixture
def pipe(target: Target, monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = tiny_pipe(UNET, Path(target.pipeline.source).parent)[0]
    made.scheduler = DDIMScheduler(**DDIM)
    monkeypatch.setattr(untouched, "load", lambda target, dtype: made)
    made.set_progress_bar_config(disable=True)
    return made


def asked(target: Target, *, all_prompts: bool = True) -> dict[str, Any]:
    job = UntouchedJob(target=target, values=dict(complete({})), all_prompts=all_prompts, budget_s=600.0)
    return untouched.run_untouched_job(job, Path())


def test_a_part_that_censors_is_named_and_the_call_without_it(
    pipe: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    vars(pipe)["safety_checker"] = object()

    def censor(self: Any, image: Any, device: Any, dtype: Any) -> tuple[Any, Any]:
        return (image, None) if self.safety_checker is None else (0 * image - 1, [True] * len(image))

    monkeypatch.setattr(type(pipe), "run_safety_checker", censor)
    found = asked(target)
    assert found["seen"] == "picture 0 is black, as its safety_checker has censored 1 of them"
    assert found["works"].startswith("without its safety_checker (a function of your own builds it so")


def test_a_scheduler_that_takes_no_so_few_steps_is_the_checkpoints_own_fault(pipe: Any, target: Target) -> None:
    pipe.scheduler = Picky(**DDIM)
    assert target.workload.steps == 2
    assert asked(target, all_prompts=False) == {"seen": "ValueError: too few steps", "works": "with --steps 4"}


def test_a_checkpoint_that_draws_is_not_to_blame(pipe: Any, target: Target) -> None:
    assert asked(target) == {"seen": None, "works": None}


def test_a_full_memory_is_no_fault_of_the_checkpoint(
    pipe: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(type(pipe), "__call__", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        asked(target)


class Runner:
    """Answers as a child would."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, 0

    def untouched(self, place: Path, config: Any, *, all_prompts: bool) -> Any:
        self.asked += 1
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            {"seen": "ValueError: too few steps. ", "works": "with --steps 4"},
            " The checkpoint itself, untouched, fails as well: ValueError: too few steps. It draws with --steps 4.",
        ),
        (
            {"seen": "picture 0 is black", "works": None},
            " The checkpoint itself, untouched, fails as well: picture 0 is black. No other steps, scheduler or number "
            "format helped.",
        ),
        (
            {"seen": None, "works": None},
            " The checkpoint itself, untouched, draws these prompts: the fault is not its own.",
        ),
        (Failure(cause="timeout", reason="too slow"), ""),
    ],
)
def test_the_error_of_the_search_says_what_was_seen(answer: Any, words: str, tmp_path: Path) -> None:
    failure = Failure(cause="broken_output", reason="picture 0 is black")
    assert untouched_words(Runner(answer), tmp_path, complete({}), failure) == words  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", ["out_of_memory", "timeout", "environment", "noisy", "no_effect"])
def test_what_says_its_own_reason_is_not_asked_again(cause: Any, tmp_path: Path) -> None:
    runner = Runner({"seen": None, "works": None})
    assert untouched_words(runner, tmp_path, complete({}), Failure(cause=cause, reason="r")) == ""  # type: ignore[arg-type]
    assert runner.asked == 0
