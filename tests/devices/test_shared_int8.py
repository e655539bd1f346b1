"""Shared int8: what Inductor writes is looked at, and the rule follows from it, for the configs that failed alone."""

import pytest
from conftest import CPU, make_target

from autotune.devices import shared_int8
from autotune.devices.shared_int8 import declared_twice, fault
from autotune.knobs import complete, find_knob
from autotune.worker.probe import _shared_int8

KNOB = find_knob("compile")
VECTOR = "auto at_BFloat16_tmp_acc0_vec = at::vec::convert<at::BFloat16,1,float,2>(tmp_acc0_vec);\n"


def test_a_name_is_declared_twice_in_one_scope_only() -> None:
    assert declared_twice("{\n" + VECTOR + VECTOR + "}\n") == "at_BFloat16_tmp_acc0_vec"
    assert declared_twice("{\n" + VECTOR + "}\n{\n" + VECTOR + "}\n") is None
    assert declared_twice("{\n" + VECTOR + "{\n" + VECTOR + "}\n}\n") is None
    assert declared_twice("") is None


def test_torch_2_13_declares_a_name_twice() -> None:
    """Where a newer torch does not, this test says so: then the docs' sentence about it is old."""
    assert "declares at_BFloat16_tmp_acc" in str(fault())


def test_the_configs_that_failed_in_the_recorded_tables_are_refused_and_no_other() -> None:
    config = complete({"compile": "regional", "dtype": "bf16", "quantization": "int8_dynamic"})
    target = make_target(CPU.model_copy(update={"shared_int8_fault": "it declares a name twice"}))
    assert KNOB.clash(config, target) == "it declares a name twice"
    assert KNOB.clash(config, make_target(CPU)) is None
    for other in (
        {"compile": "denoiser"},
        {"dtype": "fp32"},
        {"quantization": "int8_weight_only"},
        {"qkv_fusion": True},
        {"memory_format": "channels_last"},
    ):
        assert KNOB.clash(config.replace(**other), target) is None


def test_it_is_asked_only_where_a_search_may_try_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor takes seconds of every first search, and a processor that is slow in bfloat16 leaves the format out."""
    monkeypatch.setattr(shared_int8, "fault", lambda: "it declares a name twice")
    traits = make_target(CPU).pipeline.known
    assert _shared_int8(CPU, traits) == "it declares a name twice"
    for why in ("bfloat16_fault", "compile_fault"):
        assert _shared_int8(CPU.model_copy(update={why: "it takes long here"}), traits) is None
