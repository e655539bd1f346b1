"""Targets: which GPU it is belongs to a study, the number under which it is found does not."""

from pathlib import Path

from conftest import CPU, gpu, make_target

from autotune.device import Device
from autotune.target import Target

CARD = gpu(8, 9).model_copy(update={"uuid": "GPU-a", "index": 1})


def on(device: Device) -> Target:
    return make_target(device)


def test_the_same_gpu_under_another_number_is_the_same_target() -> None:
    assert on(CARD).difference(on(CARD.model_copy(update={"index": 0}))) is None


def test_another_gpu_of_the_same_model_is_another_target() -> None:
    other = CARD.model_copy(update={"uuid": "GPU-b"})
    assert on(CARD).difference(on(other)) == "device: uuid 'GPU-a', not 'GPU-b'"


def test_a_study_of_an_earlier_version_does_not_know_its_gpus_uuid() -> None:
    old = CARD.model_copy(update={"uuid": None})
    assert on(old).difference(on(CARD)) is None
    assert on(old).difference(on(CARD.model_copy(update={"index": 0}))) == "device: index 1, not 0"


def test_a_target_moves_to_another_gpu_of_its_model_and_keeps_what_was_probed() -> None:
    here = Device(kind="cuda", name=CARD.name, memory_bytes=0, index=3, uuid="GPU-b")
    moved = on(CARD).on_card(here)
    assert (moved.device.uuid, moved.device.index) == ("GPU-b", 3)
    assert moved.device.model_copy(update={"uuid": CARD.uuid, "index": CARD.index}) == CARD


def test_what_was_timed_in_the_first_probe_of_a_study_stays() -> None:
    """Else a study whose space has bfloat16 could not go on where a later probe finds it slow."""
    fast, slow = make_target(), on(CPU.model_copy(update={"bfloat16_fault": "it takes long here"}))
    assert slow.difference(fast) is None
    assert slow.as_begun(fast) == fast
    assert fast.as_begun(slow) == slow


def test_traits_that_a_later_version_reads_off_make_no_other_target_and_other_models_do() -> None:
    before, after = make_target(), make_target(step_attention=((64, False, True),), fuses_qkv=False)
    assert before.pipeline.traits != after.pipeline.traits
    assert before.difference(after) is None
    wider = make_target(linear_shapes=((64, 64), (64, 128)))
    assert "pipeline: traits" in (before.difference(wider) or "")


def test_a_pipeline_named_by_a_link_is_that_of_a_study_that_recorded_where_the_link_leads(tmp_path: Path) -> None:
    """Earlier versions followed links."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")

    def of(source: str) -> Target:
        target = make_target()
        return target.model_copy(update={"pipeline": target.pipeline.model_copy(update={"source": source})})

    recorded = of(str(tmp_path / "there"))
    assert recorded.difference(of(str(tmp_path / "link"))) is None
    assert "pipeline: source" in str(recorded.difference(of(str(tmp_path / "other"))))
