"""Compiled code beside the JSON: used only where it is asked for, on the very machine, and when its hash is right."""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_target, told
from made_up import measured, record

import autotune
from autotune import demo
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.pipelines.locate import revision_of
from autotune.production import compile_artifacts as make_artifacts
from autotune.production.artifacts import artifacts_of, pack, read_checked, unpack
from autotune.production.compile_artifacts import save_with_artifacts
from autotune.production.tuned_config import TunedConfig
from autotune.trial import Failure
from autotune.tuning.export import export


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


def kernels(cache: Path, *names: str) -> Path:
    """A cache of Inductor's with these files."""
    for name in names:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(name.encode())
    return cache


@pytest.fixture
def best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config whose compiled code lies beside it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "here"))
    (tmp_path / "best.artifacts").write_bytes(pack(b"compiled", kernels(tmp_path / "there", "ab/cabc.main.so")))
    made = tuned().model_copy(update={"artifacts": artifacts_of(tmp_path / "best.artifacts")})
    made.save(tmp_path / "best.json")
    return tmp_path / "best.json"


def test_they_are_not_touched_unless_asked_for(best: Path, loads: list[bytes]) -> None:
    autotune.load(best)
    assert loads == []
    assert not (best.parent / "here/ab").exists()
    autotune.load(best, artifacts=True)
    assert loads == [b"compiled"]
    assert (best.parent / "here/ab/cabc.main.so").read_bytes() == b"ab/cabc.main.so"


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


@pytest.mark.parametrize(("cut", "more", "says"), [(1, b"!", "another SHA-256"), (0, b"!", "another size")])
def test_a_file_that_was_exchanged_never_reaches_torch(
    best: Path, loads: list[bytes], cut: int, more: bytes, says: str
) -> None:
    file = best.parent / "best.artifacts"
    file.write_bytes(file.read_bytes()[: file.stat().st_size - cut] + more)
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


def test_kernels_go_where_they_came_from_and_replace_nothing(tmp_path: Path) -> None:
    """Of the cache, the compiled kernels alone: torch's own part has the rest."""
    cache = kernels(tmp_path / "there", "ab/c1.main.so", "cd/c2.main.so", "ab/c1.main.cpp", "fxgraph/x/y.so", "lone.so")
    other = kernels(tmp_path / "here", "cd/c2.main.so")
    (other / "cd/c2.main.so").write_bytes(b"in use")
    assert unpack(pack(b"graphs", cache), other) == b"graphs"
    found = {path.relative_to(other).as_posix(): path.read_bytes() for path in other.rglob("*") if path.is_file()}
    assert found == {"ab/c1.main.so": b"ab/c1.main.so", "cd/c2.main.so": b"in use"}


def test_a_cache_that_can_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    packed = pack(b"graphs", kernels(tmp_path / "there", "ab/c1.main.so"))
    (tmp_path / "cache").write_text("a file, where a folder should be")
    with pytest.raises(UserError, match=r"can't be laid into Inductor's cache, .*cache: Not a directory. Set TORCH"):
        unpack(packed, tmp_path / "cache")


@pytest.mark.parametrize(
    "name", ["../ab/c.so", "ab/../../c.so", "/ab/c.so", "..\\/c.so", "ab/c.py", "fxgraph/c.so", "c.so"]
)
def test_what_is_no_kernel_is_written_nowhere(tmp_path: Path, name: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("ab/good.main.so", b"")
        file.writestr("torch", b"graphs")
        file.writestr(name, b"")
    with pytest.raises(UserError, match="no kernel of torch's"):
        unpack(packed.getvalue(), tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"compiled", pack(b"graphs", Path("gone"))[:-1]])
def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match="make them anew"):
        unpack(data, tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


COMPILES = """
import os, sys
from pathlib import Path
import torch
from autotune.production.artifacts import pack, unpack

cache, file = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]), Path(sys.argv[1])
if file.exists():
    assert torch.compiler.load_cache_artifacts(unpack(file.read_bytes(), cache)) is not None
there = {path.name: path.stat().st_mtime_ns for path in cache.glob("??/*.so")}
seen = torch.compile(lambda x: (x.sin() * 2 + x.cos()).sum(dim=1))(torch.linspace(0, 1, 4096).reshape(64, 64))
after = {path.name: path.stat().st_mtime_ns for path in cache.glob("??/*.so")}
if not file.exists():
    file.write_bytes(pack(torch.compiler.save_cache_artifacts()[0], cache))
print(len(there), len(after), there == after, float(seen.sum()))
"""


def test_in_a_fresh_process_with_empty_caches_no_kernel_is_compiled(tmp_path: Path) -> None:
    """The real thing, with one kernel."""
    told = []
    for name in ("first", "second"):
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / name)}
        words = [sys.executable, "-c", COMPILES, str(tmp_path / "artifacts")]
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        told.append(done.stdout.splitlines()[-1].split())
    (before, made, _, drawn), (laid, after, same, again) = told
    assert before == "0"
    assert int(made) > 0
    assert (laid, after, same) == (made, made, "True")
    assert drawn == again


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
