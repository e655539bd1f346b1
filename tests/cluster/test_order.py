"""Orders, parcels, and who may take part: decisions without a cluster."""

import os
import time
from pathlib import Path

import pytest
from conftest import CPU, gpu, make_target
from made_up import failed, measured

import autotune
from autotune.cluster import messenger, work
from autotune.cluster.cards import off, off_words
from autotune.cluster.open import choose_settings, open_team, read_workers
from autotune.cluster.order import Order, make_order, needed
from autotune.cluster.parcel import listing, pack, unpack
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.knobs import complete
from autotune.measurement import Health
from autotune.pipelines import factory
from autotune.reuse import Reuse, SourceTrial
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor

COMPILED = complete({"compile": "denoiser"})


def runner(path: Path) -> Runner:
    return Runner(StudyFolder(path), make_target(), 600.0)


def order(path: Path, **options: object) -> Order:
    made = make_order(runner(path), path / "trials" / "0007", complete({}))
    return made.model_copy(update={"pictures": True, **options})


def test_the_trials_that_travel_with_an_order_give_the_same_time_limits(tmp_path: Path) -> None:
    """Of a thousand, at most six."""
    trials = [measured(number, COMPILED if number % 3 == 0 else {}) for number in range(40)]
    trials = [trial.model_copy(update={"seconds": 5.0 + trial.number * 7 % 90}) for trial in trials]
    trials += [failed(40, COMPILED, cause="timeout").model_copy(update={"seconds": 400.0}), failed(41)]
    source = SourceTrial(trial=5, prompt=0, suspects={}, min_psnr_db=None, conclusive=True)
    few = needed(trials, Reuse(source=source, compiler=6))
    assert len(few) <= 6
    assert {5, 6} <= {trial.number for trial in few}
    patient = runner(tmp_path)
    patient.timeout_s = 1e6
    for config in (COMPILED, complete({})):
        assert patient.time_limit_s(config, few) == patient.time_limit_s(config, trials)


def test_an_order_wants_the_pictures_that_it_reads_and_no_others(tmp_path: Path) -> None:
    assert order(tmp_path).wants == ["trials/0000/images"]
    assert order(tmp_path, pictures=False).wants == []
    assert order(tmp_path, place="trials/0000").wants == [], "the baseline is judged by its own"
    source = SourceTrial(trial=5, prompt=0, suspects={}, min_psnr_db=None, conclusive=True)
    assert order(tmp_path, reuse=Reuse(source=source)).wants == ["trials/0000/images", "trials/0005/images"]
    drawn = order(tmp_path, draw=make_target().workload, reference="confirm/0000/128-pairs")
    assert drawn.wants == ["confirm/0000/128-pairs/images"]
    baseline = drawn.model_copy(update={"place": drawn.reference})
    assert baseline.wants == [], "the baseline's are not drawn yet"
    assert Order.model_validate_json(drawn.model_dump_json()) == drawn


def test_a_parcel_is_the_folder_and_never_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "from" / "images").mkdir(parents=True)
    (tmp_path / "from" / "images" / "000.png").write_bytes(b"\0picture")
    (tmp_path / "from" / "log.txt").symlink_to("/etc/hostname")
    parcel = pack(tmp_path / "from")
    assert parcel == {"images/000.png": b"\0picture"}
    unpack(parcel, tmp_path / "to")
    assert (tmp_path / "to" / "images" / "000.png").read_bytes() == b"\0picture"
    assert pack(tmp_path / "nothing") == {}
    before = listing(tmp_path / "to")
    assert before == listing(tmp_path / "to") != ()
    assert listing(tmp_path / "nothing") == ()
    (tmp_path / "to/images/001.png").write_bytes(b"another")
    assert listing(tmp_path / "to") != before, "what was sent is not what is there now"
    for name in ("../x", "/tmp/x", "a/../../x"):
        with pytest.raises(ValueError, match="leads out"):
            unpack({name: b""}, tmp_path / "to")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "NVIDIA T4"}, "its name is NVIDIA T4"),
        ({"driver": "1.0"}, "its driver is 1.0, the study's"),
        ({"memory_bytes": 1}, "its memory bytes is 1"),
    ],
)
def test_only_a_card_of_the_studys_model_driver_and_memory_joins(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    target = make_target(device=gpu(8, 0))
    own = order(tmp_path, target=target)
    assert work.unlike(own, target.device, target.versions) is None
    assert work.unlike(own, target.device.model_copy(update={"uuid": "GPU-1", "index": 3}), target.versions) is None
    refused = work.unlike(own, target.device.model_copy(update=change), target.versions)
    assert refused is not None
    assert refused.startswith(says)


def test_other_libraries_and_another_autotune_are_refused(tmp_path: Path) -> None:
    own = order(tmp_path)
    device, versions = own.target.device, own.target.versions
    assert work.unlike(own, device, {**versions, "torch": "0.1"}) is not None
    assert "it has xformers 1.0, the study not installed" in (
        work.unlike(own, device, {**versions, "xformers": "1.0"}) or ""
    )
    older = own.model_copy(update={"version": "0.0.1"})
    assert work.unlike(older, device, versions) == f"it has autotune {autotune.__version__}, the search 0.0.1"


def test_a_worker_reads_the_variables_of_the_study_and_not_its_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets OMP_NUM_THREADS to the cores that a task asks for."""
    monkeypatch.setattr(os, "environ", {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "2"})
    work._take_variables({"MKL_NUM_THREADS": "4"})
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["MKL_NUM_THREADS"] == "4"


def test_a_worker_that_may_not_take_the_searchs_priority_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    assert work._take_priority(os.nice(0)) is None
    monkeypatch.setattr(os, "setpriority", refuse)
    assert "RAY_worker_niceness=0" in (work._take_priority(0) or "")


def test_what_workers_of_this_machine_are_given() -> None:
    card = gpu(8, 0)
    eight = [card] * 8
    assert choose_settings(None, None, card, [card]) is None, "one card: the search runs as ever"
    assert choose_settings(1, None, card, eight) is None
    every = choose_settings(None, None, card, eight)
    assert every is not None
    assert (every.address, every.workers, every.cards, every.resource, every.shown) == (None, 8, 8, "GPU", None)
    assert choose_settings(None, None, CPU, []) is None
    with pytest.raises(UserError, match="--workers 9: this machine has 8"):
        choose_settings(9, None, card, eight)
    with pytest.raises(UserError, match="on one processor would disturb"):
        choose_settings(2, None, CPU, [])
    remote = choose_settings(None, "ray://head:10001", CPU, [])
    assert remote is not None
    assert (remote.address, remote.resource, remote.driver_ip) == ("ray://head:10001", "card", None)
    inside = choose_settings(None, "127.0.0.2:6379", CPU, [])
    assert inside is not None
    assert inside.driver_ip == "127.0.0.2"


def test_of_a_machine_with_cards_of_two_models_ray_sees_the_searchs_alone() -> None:
    """It would count the first ones of the machine, and the search would refuse them all."""
    first, second = (
        [gpu(major, 0).model_copy(update={"uuid": f"GPU-{major}{index}"}) for index in range(count)]
        for major, count in ((8, 2), (9, 3))
    )
    there = [*first, *second]
    found = choose_settings(None, None, second[0], there)
    assert found is not None
    assert (found.workers, found.cards, found.shown) == (3, 3, "GPU-90,GPU-91,GPU-92")
    assert messenger._environment(found, token=False)["CUDA_VISIBLE_DEVICES"] == "GPU-90,GPU-91,GPU-92"
    assert choose_settings(None, None, first[0], [*first, second[0]]) is not None
    assert choose_settings(None, None, second[0], [*first, second[0]]) is None, "the only one of its model"
    others = [card.model_copy(update={"kind": "rocm"}) for card in there]
    with pytest.raises(UserError, match=r"has other cards than .*, too: show the search these alone"):
        choose_settings(None, None, others[0], others)


@pytest.mark.parametrize("word", ["0", "-1", "all", "1.5", 0])
def test_a_number_of_workers_that_is_none_is_refused(word: str | int) -> None:
    with pytest.raises(UserError, match="--workers takes a number of at least 1, or auto"):
        read_workers(word)


def test_without_ray_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.cluster.open.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ray\[client\]>="), open_team(2, "host:6379", "cpu"):
        pass
    with open_team(None, None, "cpu") as team:
        assert team is None


def anchor(card: str, latency_s: float, celsius: float | None = None) -> Anchor:
    outcome = measured(1, latency_s=latency_s).measured
    assert outcome is not None
    outcome = outcome.model_copy(update={"health": Health(temperature_c=celsius)})
    return Anchor(before=1, outcome=outcome, seconds=1.0, card=card)


def test_a_card_is_off_only_beyond_the_noise_between_processes() -> None:
    baseline = measured(0).model_copy(update={"card": "a/gpu-0"})
    near, far = anchor("a/gpu-1", 1.02), anchor("b/gpu-0", 1.20)
    assert off("a/gpu-1", ["a/gpu-0"], baseline, [near, far]) is None
    assert off("b/gpu-0", ["a/gpu-0", "a/gpu-1"], baseline, [near, far]) == pytest.approx(0.19, abs=0.01)
    assert off("c/gpu-0", ["a/gpu-0"], baseline, [near, far]) is None, "it was not measured"
    hot, cool = anchor("b/gpu-0", 1.06, 78).measured, anchor("a/gpu-1", 1.0, 64).measured
    assert off_words(0.06, hot, cool) == "is 6% slower than the other cards: hotter by 14 °C"
    assert off_words(-0.06, cool, None) == "is 6% faster than the other cards"


def test_a_card_that_is_gone_after_a_trial_failed_is_to_blame_and_not_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = gpu(8, 0).model_copy(update={"uuid": "GPU-1"})
    monkeypatch.setattr(work, "find_device", lambda word: card)
    assert work._is_gone(card) is None
    monkeypatch.setattr(work, "find_device", lambda word: card.model_copy(update={"uuid": "GPU-2"}))
    assert "in its place is" in (work._is_gone(card) or "")

    def lost(word: str | None) -> None:
        raise UserError(f"--device {word}: there is no such device.")

    monkeypatch.setattr(work, "find_device", lost)
    assert work._is_gone(card) == "--device GPU-1: there is no such device."
    assert work._is_gone(CPU) is None, "a processor does not go"


def test_what_the_user_allows_travels_with_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "AUTOTUNE_BUSY": "accept"})
    assert order(tmp_path).busy
    work._take_variables({}, busy=False)
    assert "AUTOTUNE_BUSY" not in os.environ, "the search did not ask for it, whatever the worker's host has"
    assert not order(tmp_path).busy
    work._take_variables({}, busy=True)
    assert os.environ["AUTOTUNE_BUSY"] == "accept"
    assert not order(tmp_path).hub_kernels
    work._take_variables({}, kernels=True)
    assert order(tmp_path).hub_kernels
    work._take_variables({})
    assert not order(tmp_path).hub_kernels, "the worker's host alone allows nothing"


def test_what_a_host_downloads_first_is_no_part_of_a_runs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = order(tmp_path, target=make_target(device=find_device("cpu")), fetch=True)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(work, "unlike", lambda *args: None)
    monkeypatch.setattr(work, "_fetch", lambda *args: time.sleep(0.5))
    monkeypatch.setattr(work.GatedRunner, "run", lambda *args, **options: measured(1).outcome)
    result = work._run(made, tmp_path)
    assert result.outcome == measured(1).outcome
    assert result.seconds < 0.5


def test_a_quick_search_times_fewer_calls_on_its_workers_too(tmp_path: Path) -> None:
    quick = Runner(StudyFolder(tmp_path), make_target(), 600.0, timing_s=2.0)
    made = make_order(quick, tmp_path / "trials" / "0007", complete({}))
    assert work._runner(made, CPU, tmp_path / "scratch").job(made.config, pictures=True).timing_s == 2.0
    assert work._runner(order(tmp_path), CPU, tmp_path / "scratch").timing_s is None


def test_a_worker_runs_the_users_function_only_where_its_file_is_the_searchs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def make(dtype): ...\n")
    built = factory.described(f"{tmp_path / 'mine.py'}:make", run_code=True)
    built = built.model_copy(update={"revision": factory.digest_of(tmp_path / "mine.py")})
    factory._allowed.clear()
    work._allow_code(built)
    assert factory.variables([built])
    (tmp_path / "mine.py").write_text("def make(dtype): 1 / 0\n")
    with pytest.raises(UserError, match="is another file here than where the search runs"):
        work._allow_code(built)
