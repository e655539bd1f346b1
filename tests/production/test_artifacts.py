"""Artifacts: used only on request, only on the machine that they were made on, and only with the right hash."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import logged_warnings, make_target
from made_up import measured, record
from programs import run_program

import autotune
from autotune import demo
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.errors import UserError
from autotune.pipelines.locate import revision_of
from autotune.production.artifacts import artifacts_of, pack, read_checked, unpack
from autotune.production.tuned_config import TunedConfig
from autotune.tuning.export import export


def tuned(**values: Any) -> TunedConfig:
    target = make_target(find_device("cpu"))
    pipeline = target.pipeline.model_copy(update={"revision": revision_of(demo.PIPELINE)})
    target = target.model_copy(update={"pipeline": pipeline, "versions": versions()})
    return export(record(target), measured(1, values), measured(0), None)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The data that torch loads."""
    seen: list[bytes] = []
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", lambda data: seen.append(data) or object())
    return seen


def kernels(cache: Path, *names: str) -> Path:
    """A cache folder of Inductor with these files."""
    for name in names:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(name.encode())
    return cache


@pytest.fixture
def best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with its compiled code beside it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "here"))
    (tmp_path / "best.artifacts").write_bytes(pack(b"compiled", kernels(tmp_path / "there", "ab/cabc.main.so")))
    made = tuned().model_copy(update={"artifacts": artifacts_of(tmp_path / "best.artifacts")})
    made.save(tmp_path / "best.json")
    return tmp_path / "best.json"


def test_they_are_not_touched_without_the_argument_artifacts(best: Path, loads: list[bytes]) -> None:
    autotune.load(best)
    assert loads == []
    assert not (best.parent / "here/ab").exists()
    autotune.load(best, artifacts=True)
    assert loads == [b"compiled"]
    assert (best.parent / "here/ab/cabc.main.so").read_bytes() == b"ab/cabc.main.so"


def test_another_machine_ignores_them_and_says_so(
    best: Path, loads: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    data = json.loads(best.read_text())
    data["versions"]["torch"] = "2.11.0"
    best.write_text(json.dumps(data))
    autotune.load(best, artifacts=True)
    assert loads == []
    assert any(
        said.startswith("the artifacts are ignored, because something has changed") for said in logged_warnings(caplog)
    )


def test_a_config_without_them_says_so(tmp_path: Path, loads: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    tuned().save(tmp_path / "best.json")
    autotune.load(tmp_path / "best.json", artifacts=True)
    assert loads == []
    assert logged_warnings(caplog) == ["artifacts=True, but this config has no artifacts: it is compiled here."]


@pytest.mark.parametrize(("cut", "more", "says"), [(1, b"!", "another SHA-256"), (0, b"!", "another size")])
def test_a_replaced_file_never_reaches_torch(best: Path, loads: list[bytes], cut: int, more: bytes, says: str) -> None:
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
    with pytest.raises(UserError, match="not in the folder of the config"):
        read_checked(kept, tmp_path)
    (tmp_path / "best.artifacts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not in the folder of the config"):
        read_checked(kept, tmp_path)


def test_kernels_go_where_they_came_from_and_replace_nothing(tmp_path: Path) -> None:
    """Only the compiled kernels of the cache are packed: torch's own entry has the rest."""
    cache = kernels(tmp_path / "there", "ab/c1.main.so", "cd/c2.main.so", "ab/c1.main.cpp", "fxgraph/x/y.so", "lone.so")
    other = kernels(tmp_path / "here", "cd/c2.main.so")
    (other / "cd/c2.main.so").write_bytes(b"in use")
    assert unpack(pack(b"graphs", cache), other) == b"graphs"
    found = {path.relative_to(other).as_posix(): path.read_bytes() for path in other.rglob("*") if path.is_file()}
    assert found == {"ab/c1.main.so": b"ab/c1.main.so", "cd/c2.main.so": b"in use"}


def test_a_cache_that_can_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    packed = pack(b"graphs", kernels(tmp_path / "there", "ab/c1.main.so"))
    (tmp_path / "cache").write_text("a file, where a folder should be")
    with pytest.raises(UserError, match=r"can't be copied into Inductor's cache, .*cache: Not a directory. Set TORCH"):
        unpack(packed, tmp_path / "cache")


@pytest.mark.parametrize(
    "name", ["../ab/c.so", "ab/../../c.so", "/ab/c.so", "..\\/c.so", "ab/c.py", "fxgraph/c.so", "c.so"]
)
def test_an_entry_that_is_not_a_kernel_is_never_written(tmp_path: Path, name: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("ab/good.main.so", b"")
        file.writestr("torch", b"graphs")
        file.writestr(name, b"")
    with pytest.raises(UserError, match="not a kernel of torch"):
        unpack(packed.getvalue(), tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"compiled", pack(b"graphs", Path("gone"))[:-1]])
def test_data_that_is_not_an_archive_of_artifacts_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match="make them again"):
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


def test_in_another_process_with_empty_caches_no_kernel_is_compiled(tmp_path: Path) -> None:
    """With torch's own compiler and one kernel."""
    printed = []
    for name in ("first", "second"):
        late = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / name)}
        done = run_program("-c", COMPILES, tmp_path / "artifacts", late=late)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.splitlines()[-1].split())
    (before, made, _, drawn), (laid, after, same, again) = printed
    assert before == "0"
    assert int(made) > 0
    assert (laid, after, same) == (made, made, "True")
    assert drawn == again


def test_a_path_in_place_of_a_name_is_refused(best: Path) -> None:
    data = json.loads(best.read_text())
    data["artifacts"]["file"] = "../best.artifacts"
    best.write_text(json.dumps(data))
    with pytest.raises(UserError, match="not a plain file name"):
        autotune.load(best)


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotune.production.artifacts.MOST_BYTES", 2**20)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("torch", b"")
        file.writestr("ab/kernel.so", b"\0" * 2**21)
    assert len(packed.getvalue()) < 2**14
    with pytest.raises(UserError, match="unpack to more than"):
        unpack(packed.getvalue(), tmp_path)
    assert list(tmp_path.iterdir()) == []
