"""The user's environment variables reach into every child: they are refused, recorded or replaced."""

import json
from pathlib import Path

import pytest
from conftest import make_target
from made_up import record
from scripted import run_script

from autotune.errors import UserError
from autotune.execution.variables import check_variables, recorded_variables
from autotune.job import MeasureJob


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        ("PYTORCH_ALLOC_CONF", "max_split_size_mb:64"),
        ("TORCHINDUCTOR_MAX_AUTOTUNE", "1"),
        ("TORCHINDUCTOR_FREEZING", "1"),
        ("TORCH_BLAS_PREFER_CUBLASLT", "1"),
        ("TRITON_F32_DEFAULT", "tf32"),
        ("NVIDIA_TF32_OVERRIDE", "0"),
        ("CUDA_MODULE_LOADING", "EAGER"),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("OMP_NUM_THREADS", "4"),
        ("MALLOC_ARENA_MAX", "2"),
        ("LD_PRELOAD", "/usr/lib/libtcmalloc.so"),
        ("MIOPEN_FIND_MODE", "3"),
    ],
)
def test_what_libraries_read_is_recorded(name: str, value: str) -> None:
    assert recorded_variables({name: value, "EDITOR": "vi", "HF_TOKEN": "secret"}) == {name: value}


PLACES = ("CUDA_HOME", "CUDA_PATH", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "PATH", "HOME")
OTHERS = ("CUDA_VERSION", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "TORCH_LOGS", "HF_TOKEN")


@pytest.mark.parametrize("name", [*PLACES, *OTHERS])
def test_places_logs_and_secrets_are_not(name: str) -> None:
    assert recorded_variables({name: "x"}) == {}


@pytest.mark.parametrize(
    "name",
    ["CUDA_LAUNCH_BLOCKING", "TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE", "TORCHINDUCTOR_FORCE_DISABLE_CACHES"],
)
def test_what_makes_figures_untrue_is_refused_with_the_reason_and_the_way_out(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}=1 is set: .* Unset it \(`unset {name}`\)"):
        check_variables({name: "1"})
    check_variables({name: "0"})
    check_variables({})


def test_nothing_is_started_with_a_refused_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    with pytest.raises(UserError, match="CUDA_LAUNCH_BLOCKING"):
        run_script(tmp_path, "spawn", "pass")
    assert not (tmp_path / "job").exists()


def test_the_users_caches_of_compiled_code_do_not_reach_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that they hold would make a cold compilation look warm."""
    monkeypatch.setenv("TRITON_CACHE_DIR", "/home/user/triton")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/home/user/inductor")
    script = (
        "import json, os, sys; found = {n: os.environ.get(n) for n in ('TRITON_CACHE_DIR', 'TORCHINDUCTOR_CACHE_DIR')}"
    )
    script += "\nopen(sys.argv[1] + '/outcome.json', 'w').write(json.dumps({'result': found}))"
    found = run_script(tmp_path, "spawn", script, env={"TORCHINDUCTOR_CACHE_DIR": "/own"})
    assert found == {"TRITON_CACHE_DIR": None, "TORCHINDUCTOR_CACHE_DIR": "/own"}


def test_a_study_does_not_go_on_under_other_variables() -> None:
    target = make_target()
    one, other = (target.model_copy(update={"environment": variables}) for variables in ({}, {"OMP_NUM_THREADS": "1"}))
    assert one.difference(other) == "environment: OMP_NUM_THREADS None, not '1'"
    assert other.difference(other) is None
    assert target.difference(other) is None, "a study of an earlier version doesn't know its variables"


def test_no_token_of_the_user_is_recorded() -> None:
    """Studies, reports and exported configs are shared."""
    canary = "hf_canary0123456789"
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY")
    recorded = recorded_variables({**dict.fromkeys(names, canary), "OMP_NUM_THREADS": "2"})
    assert recorded == {"OMP_NUM_THREADS": "2"}
    target = make_target().model_copy(update={"environment": recorded})
    job = MeasureJob(target=target, values={}, pictures=True)
    assert canary not in json.dumps([job.to_json(), record(target).to_json()])
