"""Compiled code beside the JSON: used only where it is asked for, on the very machine, and when its hash is right."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_target, told
from made_up import measured, record

import autotune
from autotune import demo, isolate, make_artifacts
from autotune.artifacts import artifacts_of, read_checked
from autotune.device import find_device
from autotune.errors import UserError
from autotune.export import export
from autotune.here import versions
from autotune.make_artifacts import save_with_artifacts
from autotune.pipelines.locate import revision_of
from autotune.trial import Failure
from autotune.tuned import TunedConfig


def tuned(**values: Any) -> TunedConfig:
    target = make_target(find_device("cpu"))
    pipeline = target.pipeline.model_copy(update={"revision": revision_of(demo.PIPELINE)})
    target = target.model_copy(update={"pipeline": pipeline, "versions": versions()})
    return export(record(target), measured(1, values), measured(0), None)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What torch is given."""
    seen: list[bytes] = []
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", lambda data: seen.append(data) or object())
    return seen


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """A config whose compiled code lies beside it."""
    (tmp_path / "best.artifacts").write_bytes(b"compiled")
    made = tuned().model_copy(update={"artifacts": artifacts_of(tmp_path / "best.artifacts")})
    made.save(tmp_path / "best.json")
    return tmp_path / "best.json"


def test_they_are_not_touched_unless_asked_for(best: Path, loads: list[bytes]) -> None:
    autotune.load(best)
    assert loads == []
    autotune.load(best, artifacts=True)
    assert loads == [b"compiled"]


def test_another_place_ignores_them_with_a_word(
    best: Path, loads: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    data = json.loads(best.read_text())
    data["versions"]["torch"] = "2.11.0"
    best.write_text(json.dumps(data))
    autotune.load(best, artifacts=True)
    assert loads == []
    assert any(said.startswith("its artifacts are ignored, because") for said in told(caplog))


def test_a_config_without_them_says_so(tmp_path: Path, loads: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    tuned().save(tmp_path / "best.json")
    autotune.load(tmp_path / "best.json", artifacts=True)
    assert loads == []
    assert told(caplog) == ["artifacts=True, but this config comes without any: it is compiled here."]


@pytest.mark.parametrize(("content", "says"), [(b"Compiled", "another SHA-256"), (b"compiled!", "another size")])
def test_a_file_that_was_exchanged_never_reaches_torch(
    best: Path, loads: list[bytes], content: bytes, says: str
) -> None:
    (best.parent / "best.artifacts").write_bytes(content)
    with pytest.raises(UserError, match=says):
        autotune.load(best, artifacts=True)
    assert loads == []


def test_a_link_out_of_the_folder_and_a_missing_file_are_refused(best: Path, tmp_path: Path) -> None:
    kept = TunedConfig.load(best).artifacts
    assert kept is not None
    (tmp_path / "elsewhere").write_bytes(b"compiled")
    (tmp_path / "best.artifacts").unlink()
    with pytest.raises(UserError, match="not beside the config"):
        read_checked(kept, tmp_path)
    (tmp_path / "best.artifacts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not beside the config"):
        read_checked(kept, tmp_path)


def test_a_path_in_place_of_a_name_is_refused(best: Path) -> None:
    data = json.loads(best.read_text())
    data["artifacts"]["file"] = "../best.artifacts"
    best.write_text(json.dumps(data))
    with pytest.raises(UserError, match="no plain file name"):
        autotune.load(best)


def test_what_compiles_nothing_has_no_artifacts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this config compiles nothing"):
        save_with_artifacts(tuned(), tmp_path / "best.json")
    assert list(tmp_path.iterdir()) == []


def test_the_json_that_is_written_has_the_hash_of_what_the_child_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(folder: Path, job: Any, **how: Any) -> dict[str, Any]:
        assert (job.kind, job.values["compile"]) == ("artifacts", "regional")
        assert "TORCHINDUCTOR_CACHE_DIR" in how["env"], "its caches are empty at first"
        folder.mkdir()
        (folder / "artifacts").write_bytes(b"made")
        return {"bytes": 4}

    monkeypatch.setattr(isolate, "run", child)
    save_with_artifacts(tuned(compile="regional"), tmp_path / "best.json")
    kept = TunedConfig.load(tmp_path / "best.json").artifacts
    assert kept is not None
    assert (kept.file, kept.sha256) == ("best.artifacts", hashlib.sha256(b"made").hexdigest())
    assert (tmp_path / "best.artifacts").read_bytes() == b"made"


def test_a_child_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_artifacts.isolate, "run", lambda *_, **__: Failure(cause="error", reason="no compiler"))
    with pytest.raises(UserError, match=r"can't be compiled here \(error\): no compiler"):
        save_with_artifacts(tuned(compile="regional"), tmp_path / "best.json")
    assert list(tmp_path.iterdir()) == []
