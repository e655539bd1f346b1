"""Compiling a config for export: in a child with empty caches, and what the JSON says of the file."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import measured, record

from autotune import demo
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.pipelines.locate import revision_of
from autotune.production.tuned_config import TunedConfig
from autotune.trial import Failure
from autotune.tuning.compile_artifacts import save_with_artifacts
from autotune.tuning.export import export


def tuned(**values: Any) -> TunedConfig:
    target = make_target(find_device("cpu"))
    pipeline = target.pipeline.model_copy(update={"revision": revision_of(demo.PIPELINE)})
    target = target.model_copy(update={"pipeline": pipeline, "versions": versions()})
    return export(record(target), measured(1, values), measured(0), None)


def test_what_compiles_nothing_has_no_artifacts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this config compiles nothing"):
        save_with_artifacts(tuned(), tmp_path / "best.json")
    assert list(tmp_path.iterdir()) == []


def test_the_json_that_is_written_has_the_hash_of_what_the_child_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(folder: Path, job: Any, **how: Any) -> dict[str, Any]:
        assert (job.kind, job.values["compile"]) == ("artifacts", "regional")
        assert "TORCHINDUCTOR_CACHE_DIR" in how["env"], "the caches of the child are empty at first"
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
    monkeypatch.setattr(isolate, "run", lambda *_, **__: Failure(cause="error", reason="no compiler"))
    with pytest.raises(UserError, match=r"can't be compiled here \(error\): no compiler"):
        save_with_artifacts(tuned(compile="regional"), tmp_path / "best.json")
    assert list(tmp_path.iterdir()) == []
