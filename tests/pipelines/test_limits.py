"""What a pipe can't take is known from the probe: too many steps, prompts that it or the scorer can't read."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CPU, make_target
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler
from PIL import Image
from tiny import ALPHAS, DDIM, clip_tokenizer, t5_tokenizer, tiny_checkpoint

from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution import probe as probing
from autotune.execution.isolate import _read_outcome
from autotune.measure.metrics._clip import Clip
from autotune.measure.quality import judge
from autotune.pipelines import resolve
from autotune.pipelines.inspect import assembled
from autotune.pipelines.rehearsal.limits import Cut, check_steps, cut_prompts
from autotune.study_folder import picture_name
from autotune.trial import Failure
from autotune.worker.probe import _cut_words, _unscored
from autotune.workload import Prompts, WorkloadRequest

LONG = "a red circle above a blue star beside a green tree, " * 12


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_checkpoint("StableDiffusionPipeline", tmp_path_factory.mktemp("limits"))
    return assembled(resolve(str(folder)))


@pytest.mark.parametrize(
    ("scheduler", "most"), [(DDIMScheduler(**DDIM), 1000), (LCMScheduler(**ALPHAS, original_inference_steps=50), 50)]
)
def test_steps_beyond_what_the_scheduler_knows_are_refused_by_the_probe(pipe: Any, scheduler: Any, most: int) -> None:
    pipe.scheduler = scheduler
    check_steps(pipe, most)
    with pytest.raises(UserError) as caught:
        check_steps(pipe, most + 1)
    assert str(caught.value).startswith(f"--steps {most + 1} is more than {type(scheduler).__name__} can take: ValueE")
    assert "\n" not in str(caught.value)


def test_a_pipe_that_fails_at_any_number_of_steps_is_not_blamed_on_them(pipe: Any) -> None:
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)  # needs what this call does not give it
    check_steps(pipe, 7)


def with_tokenizers(**given: Any) -> Any:
    class Pipe:
        components = given

        def __call__(self, prompt: str, max_sequence_length: int = 256) -> None: ...

    made = Pipe()
    vars(made).update(given)
    return made


def test_a_prompt_is_cut_where_no_text_encoder_reads_it_whole() -> None:
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    t5.model_max_length = 512
    context = clip.model_max_length
    [cut] = cut_prompts(with_tokenizers(tokenizer=clip), ["a star", LONG], {})
    assert (cut.prompt, cut.tokens) == (LONG, context)
    assert LONG.strip().endswith(cut.lost)
    assert len(clip(LONG[: -len(cut.lost) - 1]).input_ids) == context
    both = with_tokenizers(tokenizer=clip, tokenizer_2=t5)
    assert cut_prompts(both, [LONG[:200]], {}) == [], "T5 reads it: every letter is a token"
    [cut] = cut_prompts(both, [LONG[:200]], {"max_sequence_length": 64})
    assert cut.lost


def test_the_positions_of_the_text_encoder_are_a_limit_as_well() -> None:
    clip = clip_tokenizer()
    clip.model_max_length = 10**30
    encoder = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=24))
    [cut] = cut_prompts(with_tokenizers(tokenizer=clip, text_encoder=encoder), [LONG], {})
    assert cut.tokens == 24
    assert cut_prompts(with_tokenizers(), [LONG], {}) == []


def test_what_is_cut_is_said_once_with_an_example() -> None:
    words = _cut_words([Cut("a" * 60, 77, "the end"), Cut("b", 77, "c")], 9)
    assert words == (
        f"2 of 9 prompts are cut, as the pipeline reads 77 tokens: of {'a' * 40!r}... it does not read 'the end'."
    )


def test_prompts_that_the_pipeline_reads_and_the_scorer_can_not_have_no_score() -> None:
    clip = Clip("demo")
    assert _unscored(clip, ["a star"], []) == []
    assert _unscored(clip, ["a star", LONG], []) == [
        f"1 of 2 prompts are longer than the {clip.context} tokens that the scorer reads: their pictures have no CLIP "
        "score."
    ]
    with pytest.raises(UserError, match="every prompt has more: give --scorer none"):
        _unscored(clip, [LONG], [])
    with pytest.raises(UserError, match=r"the scorer reads \d+: shorten it"):
        _unscored(clip, ["a star", LONG], [Cut(LONG, 77, "end")])


def test_quality_is_of_the_prompts_that_the_scorer_reads(tmp_path: Path) -> None:
    for number, color in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / picture_name(number))
    found = judge(tmp_path, tmp_path, ["a red circle", LONG], "demo")
    assert [score is None for score in found.clip_scores] == [False, True]
    assert (len(found.ssim), found.drops(found)) == (2, (0.0,))
    with pytest.raises(UserError, match=r"the scorer reads \d+: shorten it"):
        judge(tmp_path, tmp_path, [LONG, LONG], "demo")


def test_the_probe_obeys_the_timeout_and_names_its_log_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def run(folder: Path, job: Any, *, timeout_s: float, **_: Any) -> Failure:
        limits.extend((timeout_s, job.timeout_s))
        return Failure(cause="timeout", reason=f"no result after 1 s, killed; log at {folder / 'log.txt'}")

    monkeypatch.setattr(isolate, "run", run)
    request = WorkloadRequest(prompts=Prompts(texts=("a",)))
    with pytest.raises(UserError) as caught:
        probing.probe(tmp_path, resolve("demo"), CPU, request, timeout_s=1.0)
    assert limits == [1.0, 1.0]
    assert str(caught.value) == (
        f"demo can't be probed: no result after 1 s, killed; log at {tmp_path / 'log.txt'}. Give it "
        "longer by --timeout."
    )
    limits.clear()
    with pytest.raises(UserError):
        probing.probe(tmp_path, resolve("owner/name"), CPU, request, timeout_s=1.0)
    assert limits == [probing.PROBE_TIMEOUT_S, 1.0], "a download takes its time; the child limits what follows"
    ended = _read_outcome(tmp_path, -signal.SIGALRM, 9.0, oom_killed=False)
    assert isinstance(ended, Failure)
    assert ended.cause == "timeout"
    assert make_target().notes == ()
