"""How long a trial may take, how often it is tried, and what it takes over from earlier ones. Starts no process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import changed, failed, measured, quality
from PIL import Image

from autotune.config import Value
from autotune.device import Device
from autotune.errors import UserError
from autotune.execution import fork_client, isolate
from autotune.execution.runner import LEAST_COMPILE_TIMEOUT_S, LEAST_TIMEOUT_S, Runner
from autotune.frozen_model import write_json
from autotune.job import JobOutcome, MeasureJob
from autotune.knobs import complete
from autotune.measurement import Compilation, CompiledAs, Measurement, Peaks
from autotune.reuse import Reuse, SourceTrial, SpotCheck
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import NOT_THE_CONFIG, Cause, Failure, Trial


def took(seconds: float, *, works: bool = True) -> Trial:
    return (measured(0) if works else failed(1)).model_copy(update={"seconds": seconds})


@pytest.mark.parametrize(
    ("earlier", "sizes", "limit_s"),
    [
        ([], 1, 1800.0),
        ([took(10.0)], 1, LEAST_TIMEOUT_S),
        ([took(10.0)], 3, 3 * LEAST_TIMEOUT_S),
        ([took(100.0), took(10.0)], 1, 500.0),
        ([took(10.0), took(1800.0, works=False)], 1, LEAST_TIMEOUT_S),
        ([took(1000.0)], 1, 1800.0),
    ],
)
def test_a_trial_may_take_five_times_the_longest_and_time_to_compile_for_each_size(
    tmp_path: Path, earlier: list[Trial], sizes: int, limit_s: float
) -> None:
    runner = Runner(StudyFolder(tmp_path), make_target(sizes=sizes), timeout_s=1800.0)
    assert runner.time_limit_s(complete({}), earlier) == limit_s


COMPILED = {"compile": "regional", "compile_mode": "max-autotune"}


def compiling(seconds: float, *, works: bool = True, cause: Cause = "timeout") -> Trial:
    outcome = {} if works else {"outcome": Failure(cause=cause, reason="no result")}
    return measured(1, COMPILED).model_copy(update={"seconds": seconds, **outcome})


@pytest.mark.parametrize(
    ("earlier", "sizes", "limit_s"),
    [
        ([], 1, 7200.0),
        ([took(4.0)], 1, 7200.0),  # a fast pipeline says nothing of max-autotune
        ([took(4.0), compiling(20.0)], 1, LEAST_COMPILE_TIMEOUT_S),
        ([took(4.0), compiling(20.0)], 2, 2 * LEAST_COMPILE_TIMEOUT_S),
        ([took(4.0), compiling(400.0)], 1, 2000.0),
        ([took(4.0), compiling(20.0), compiling(900.0, works=False)], 1, 1800.0),
        ([took(4.0), compiling(20.0), compiling(1800.0, works=False)], 1, 3600.0),
        ([took(4.0), compiling(20.0), compiling(5000.0, works=False)], 1, 7200.0),
        ([took(4.0), compiling(20.0), compiling(1800.0, works=False, cause="crash")], 1, LEAST_COMPILE_TIMEOUT_S),
    ],
)
def test_a_compiled_config_has_a_limit_of_its_own_and_one_that_was_stopped_teaches_the_next(
    tmp_path: Path, earlier: list[Trial], sizes: int, limit_s: float
) -> None:
    runner = Runner(StudyFolder(tmp_path), make_target(sizes=sizes), timeout_s=7200.0)
    assert runner.time_limit_s(complete(COMPILED), earlier) == limit_s
    assert runner.time_limit_s(complete({}), [took(10.0), compiling(1000.0)]) == LEAST_TIMEOUT_S * sizes


class Attempts:
    """Fake children that end with these causes in turn; the last one repeats."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *causes: Cause | None) -> None:
        self.causes, self.jobs = list(causes), list[MeasureJob]()
        monkeypatch.setattr(isolate, "run", self.run)

    def run(self, folder: Path, job: MeasureJob, **_: object) -> dict[str, object] | Failure:
        self.jobs.append(job)
        cause = self.causes.pop(0) if len(self.causes) > 1 else self.causes[0]
        outcome = measured(0).outcome
        return outcome.to_json() if cause is None else Failure(cause=cause, reason="so it went")


def outcome(tmp_path: Path) -> Measurement | Failure:
    runner = Runner(StudyFolder(tmp_path), make_target(), timeout_s=1800.0, max_memory_bytes=2**33)
    return runner.run(tmp_path / "trial", complete({}), pictures=False, earlier=[])


@pytest.mark.parametrize("cause", sorted({*NOT_THE_CONFIG, "environment"}))
def test_promise_8_what_is_not_the_configs_fault_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Cause
) -> None:
    attempts = Attempts(monkeypatch, cause, cause, None)
    assert isinstance(outcome(tmp_path), Measurement)
    assert len(attempts.jobs) == 3


def test_every_attempt_compiles_as_the_first_one_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []

    def run(folder: Path, job: MeasureJob, *, env: dict[str, str], **_: object) -> dict[str, object] | Failure:
        compiled = Path(env["TORCHINDUCTOR_CACHE_DIR"]) / "kernel.so"
        found.append(compiled.exists())
        compiled.parent.mkdir(parents=True, exist_ok=True)
        compiled.touch()
        return Failure(cause="contended", reason="others") if len(found) < 3 else measured(0).outcome.to_json()

    monkeypatch.setattr(isolate, "run", run)
    assert isinstance(outcome(tmp_path), Measurement)
    assert found == [False, False, False]


@pytest.mark.parametrize("cause", ["throttled", "contended", "noisy"])
def test_promise_8_a_device_that_is_never_at_itself_is_the_outcome_after_three_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Cause
) -> None:
    attempts = Attempts(monkeypatch, cause)
    assert outcome(tmp_path) == Failure(cause=cause, reason="so it went")
    assert len(attempts.jobs) == 3
    assert cause in NOT_THE_CONFIG


def test_an_environment_that_stays_broken_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, "contended", "environment")
    with pytest.raises(UserError, match="so it went"):
        outcome(tmp_path)
    assert len(attempts.jobs) == 3


@pytest.mark.parametrize("cause", ["out_of_memory", "timeout", "crash", "no_effect", "broken_output", "error"])
def test_what_is_the_configs_fault_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Cause) -> None:
    attempts = Attempts(monkeypatch, cause, None)
    assert isinstance(outcome(tmp_path), Failure)
    assert len(attempts.jobs) == 1


def test_the_limit_on_memory_goes_with_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, None)
    outcome(tmp_path)
    assert [job.max_memory_bytes for job in attempts.jobs] == [2**33]


def test_what_earlier_trials_have_calibrated_goes_with_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Any] = []

    def run(place: Path, job: Any, **_: object) -> Failure:
        jobs.append(job)
        return Failure(cause="crash", reason="SIGSEGV")

    monkeypatch.setattr(isolate, "run", run)
    runner = Runner(StudyFolder(tmp_path), make_target(), timeout_s=1800.0)
    config, trial, known = complete({"cache": "magcache:0.2"}), measured(1, {"cache": "magcache:0.1"}), (1.0, 0.9)
    kept = trial.outcome.model_copy(update={"calibrations": {"cache=magcache": known}})
    earlier = [trial.model_copy(update={"outcome": kept})]
    runner.run(tmp_path / "trial", config, pictures=False, earlier=earlier)
    runner.make_pictures(tmp_path / "pictures", config, make_target(batch=2).workload, earlier=earlier)
    runner.run(tmp_path / "plain", complete({}), pictures=False, earlier=earlier)
    given = [job.target.calibrations for job in jobs]
    assert given == [{"cache=magcache": known}, {"cache=magcache": known}, {}]
    place = tmp_path / "round"
    place.mkdir()
    write_json(place / "job.json", jobs[0].to_json())
    write_json(place / "outcome.json", JobOutcome(result=kept.to_json()).to_json())
    assert runner.finished(place, config, earlier=earlier) == kept
    assert runner.finished(place, config) is None, "it was another job"


def test_what_times_nothing_may_be_forked_beside_spawned_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def run(place: Path, job: Any, *, isolation: object, **_: object) -> Any:
        asked[place.name] = isolation
        return {} if job.kind == "draw" else Failure(cause="crash", reason="SIGSEGV")

    monkeypatch.setattr(isolate, "run", run)
    runner = Runner(StudyFolder(tmp_path), make_target(), timeout_s=1800.0, isolation="spawn", drawing="fork")
    config, workload = complete({}), make_target().workload
    runner.run(tmp_path / "timed", config, pictures=False, earlier=())
    runner.draw(tmp_path / "drawn", config, workload, tmp_path, earlier=())
    assert asked == {"timed": "spawn", "drawn": "fork", "score": "fork"}


def test_what_was_measured_before_is_read_for_the_very_same_job_only(tmp_path: Path) -> None:
    place, config, values = tmp_path / "round", complete({}), measured(0).outcome.to_json()
    runner = Runner(StudyFolder(tmp_path), make_target(), timeout_s=1800.0)
    assert runner.finished(place, config) is None
    place.mkdir()
    job = MeasureJob(target=make_target(), values=dict(config), pictures=False)
    write_json(place / "job.json", job.to_json())
    assert runner.finished(place, config) is None, "it was cut short"
    write_json(place / "outcome.json", JobOutcome(result=values).to_json())
    assert runner.finished(place, config) == measured(0).outcome
    assert runner.finished(place, complete({"dtype": "bf16"})) is None
    assert Runner(StudyFolder(tmp_path), make_target(batch=2), timeout_s=1800.0).finished(place, config) is None
    assert Runner(StudyFolder(tmp_path), make_target(), 1800.0, timing_s=2.0).finished(place, config) is None
    write_json(place / "outcome.json", JobOutcome(failure=Failure(cause="contended", reason="others")).to_json())
    assert runner.finished(place, config) is None
    (place / "outcome.json").write_text("{")
    assert runner.finished(place, config) is None


def test_one_fork_server_serves_the_measurement_and_the_scoring_of_a_trial_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child on a GPU sees that card alone. The scoring, which runs on the processor, has the same environment."""
    card = Device(kind="cuda", uuid="GPU-1", name="a card", memory_bytes=2**34, compute_capability=(8, 9))
    envs: list[Mapping[str, str]] = []

    def run(how: object, command: object, folder: Path, timeout_s: float, env: Mapping[str, str], *_: object) -> int:
        envs.append(env)
        result = measured(0).outcome.to_json() if len(envs) == 1 else quality(0.0).to_json()
        write_json(folder / "outcome.json", {"result": result})
        return 0

    monkeypatch.setattr(isolate, "_run_child", run)
    runner = Runner(StudyFolder(tmp_path), make_target(card), timeout_s=1800.0)
    runner.run(tmp_path / "trial", complete({}), pictures=True, earlier=[])
    assert [env["CUDA_VISIBLE_DEVICES"] for env in envs] == ["GPU-1", "GPU-1"]
    assert len({fork_client.inherited_state(env) for env in envs}) == 1


SOURCE = SourceTrial(trial=3, prompt=0, suspects={}, min_psnr_db=None, conclusive=True)


@pytest.mark.parametrize("has_pictures", [True, False])
def test_a_source_goes_with_the_job_while_its_pictures_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_pictures: bool
) -> None:
    attempts, runner = Attempts(monkeypatch, "error"), Runner(StudyFolder(tmp_path), make_target(), timeout_s=1800.0)
    images = runner.folder.trial(3) / "images"
    images.mkdir(parents=True)
    if has_pictures:
        Image.new("RGB", (8, 8)).save(images / picture_name(0))
    runner.run(tmp_path / "trial", complete({}), pictures=True, earlier=[], reuse=Reuse(source=SOURCE))
    sent = attempts.jobs[0].reuse
    assert sent is not None
    assert (sent.source.images if sent.source else None) == (str(images.resolve()) if has_pictures else None)


@pytest.mark.parametrize("what", ["stopped", "same"])
def test_a_trial_without_pictures_of_its_own_runs_no_scoring_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The source's quality is taken over, or there is none: no job is run but the measurement."""
    check = SpotCheck(trial=3, prompt=0, ssim=1.0, psnr_db=None, largest_levels=0)
    skipped = {"spot_check": check.to_json()} if what == "same" else {"stopped": "beaten"}
    jobs: list[object] = []

    def run(folder: Path, job: object, **_: object) -> dict[str, object]:
        jobs.append(job)
        return {**measured(0).outcome.to_json(), "quality": None, **skipped}

    monkeypatch.setattr(isolate, "run", run)
    runner, source = Runner(StudyFolder(tmp_path), make_target(), timeout_s=1800.0), measured(3, loss=0.25)
    found = runner.run(tmp_path / "trial", complete({}), pictures=True, earlier=[measured(0), source], reuse=Reuse())
    assert isinstance(found, Measurement)
    assert len(jobs) == 1
    assert source.measured is not None
    expected = (source.measured.quality, 3) if what == "same" else (None, None)
    assert (found.quality, found.quality_of) == expected


def compiled(number: int, uncached: int, graphs: int = 2, **values: Value) -> Trial:
    """A trial of a config that is compiled: its first call takes 30 s, later ones 0.4 s."""
    counts = {"graphs": graphs, "graph_breaks": 0, "recompilations": 0, "fallbacks": 0}
    compilation = Compilation(**counts, seconds=20.0, uncached=uncached)
    peaks = {name: Peaks(device_bytes=peak) for name, peak in {"load": 2**20, "first": 2**31, "run": 2**30}.items()}
    trial = measured(number, {"compile": "regional", **values}, latency_s=0.4)
    memory = {"peak_memory_bytes": 2**31, "run_peak_memory_bytes": 2**30}
    return changed(trial, compilation=compilation, peaks=peaks, first_call_s=30.0, **memory)


class Compiling:
    """Fake children that in turn compile so many graphs anew, or fail. Records the caches that they were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *uncached: int | Cause, graphs: int = 2) -> None:
        self.uncached, self.graphs, self.caches = list(uncached), graphs, list[str]()
        monkeypatch.setattr(isolate, "run", self.run)

    def run(self, folder: Path, job: MeasureJob, *, env: Mapping[str, str], **_: object) -> dict[str, object] | Failure:
        self.caches.append(Path(env["TORCHINDUCTOR_CACHE_DIR"]).name)
        uncached = self.uncached.pop(0)
        if not isinstance(uncached, int):
            return Failure(cause=uncached, reason="so it went")
        warm = changed(
            compiled(1, uncached, self.graphs), first_call_s=3.0, peak_memory_bytes=2**29, run_peak_memory_bytes=2**29
        )
        return {**warm.outcome.to_json(), "quality": None}


COMPILER = compiled(1, uncached=2)


def compiles(tmp_path: Path, runner: Runner, steps: int, *, is_there: bool = True) -> Measurement:
    """The measurement of a config that differs from COMPILER's in its steps."""
    if is_there:
        (runner.folder.cache / COMPILER.config.digest).mkdir(parents=True, exist_ok=True)
    config, earlier = complete({"compile": "regional", "steps": steps}), [measured(0), COMPILER]
    reuse = Reuse(compiler=1)
    found = runner.run(tmp_path / "trial", config, pictures=False, earlier=earlier, reuse=reuse)
    assert isinstance(found, Measurement)
    return found


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return Runner(StudyFolder(tmp_path / "study"), make_target(), timeout_s=1800.0)


def test_compiled_code_is_reused_with_its_compile_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    children = Compiling(monkeypatch, "contended", 0)
    found = compiles(tmp_path, runner, steps=5)
    assert children.caches == [COMPILER.config.digest] * 2, "another attempt does not throw it away"
    assert found.compiled_as == CompiledAs(trial=1, first_calls_s=(30.0,), compile_s=20.0)
    assert (found.first_calls_s, found.compile_s) == ((30.0,), 20.0)
    assert (found.peak_memory_bytes, found.run_peak_memory_bytes) == (2**31, 2**30)
    assert found.first_call_s == 3.0, "what was measured is kept"


def test_where_some_graphs_were_missing_all_are_compiled_and_the_knob_is_not_trusted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    children = Compiling(monkeypatch, 1, 2, 2)
    first, second = (compiles(tmp_path, runner, steps=steps) for steps in (5, 6))
    five, six = (complete({"compile": "regional", "steps": steps}).digest for steps in (5, 6))
    assert children.caches == [COMPILER.config.digest, five, six]
    assert first.compiled_as is None
    assert second.compiled_as is None
    assert second.peak_memory_bytes == 2**29


def test_more_graphs_than_the_compiler_made_are_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    """All of them were in the cache, but another config's run added one of them."""
    Compiling(monkeypatch, 0, 3, graphs=3)
    assert compiles(tmp_path, runner, steps=5).compiled_as is None


def test_code_that_fails_is_not_the_configs_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    children = Compiling(monkeypatch, "crash", 2, 0)
    assert compiles(tmp_path, runner, steps=5).compiled_as is None
    assert compiles(tmp_path, runner, steps=6).compiled_as is not None, "nor the knob's"
    mine = complete({"compile": "regional", "steps": 5}).digest
    assert children.caches == [COMPILER.config.digest, mine, COMPILER.config.digest]


def test_code_that_is_gone_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    children = Compiling(monkeypatch, 2)
    assert compiles(tmp_path, runner, steps=5, is_there=False).compiled_as is None
    assert children.caches == [complete({"compile": "regional", "steps": 5}).digest]
