"""The number formats of a pipeline's files, by their headers. The files are real; the hub is made up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from autotune import demo
from autotune.errors import UserError
from autotune.pipelines.weight_files import counted, stored_formats

HALF, FULL = torch.zeros(3, 4, dtype=torch.float16), torch.zeros(5, dtype=torch.float32)


def saved(path: Path, **tensors: torch.Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def test_a_header_counts_the_weights_of_each_format(tmp_path: Path) -> None:
    assert counted(saved(tmp_path / "a.safetensors", a=HALF, b=FULL, c=FULL.clone())) == {"F16": 12, "F32": 10}


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, b"\x04" + b"\0" * 7 + b"text", b"version https://git-lfs"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"a.safetensors' is not a safetensors file"):
        counted(tmp_path / "a.safetensors")


def test_the_files_that_are_loaded_are_read_and_no_variants_of_them(tmp_path: Path) -> None:
    unet, clip = tmp_path / "unet", tmp_path / "text_encoder"
    shards = [saved(unet / f"diffusion_pytorch_model-0000{i}-of-00002.safetensors", **{f"w{i}": HALF}) for i in (1, 2)]
    assert len(shards) == 2
    saved(unet / "diffusion_pytorch_model.fp16.safetensors", w1=HALF)
    saved(clip / "model.safetensors", w=FULL)
    saved(clip / "model.fp16.safetensors", w=HALF)
    found = stored_formats(str(tmp_path), None, ["unet", "text_encoder", "vae"])
    assert found == {"unet": {"F16": 24}, "text_encoder": {"F32": 5}}


def test_where_there_are_no_plain_files_the_variant_is_read_that_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors", w=HALF)
    saved(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", w=FULL)
    assert stored_formats(str(tmp_path), None, ["unet", "vae"]) == {"unet": {"F16": 12}, "vae": {"F32": 5}}
    saved(tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors", w=HALF)
    assert stored_formats(str(tmp_path), None, ["vae"], "fp16") == {"vae": {"F16": 12}}


class Hub:
    """A hub with the files of this folder, of which it tells the headers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def model_info(self, source: str, *, revision: str | None) -> Any:
        files = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    def parse_safetensors_file_metadata(self, source: str, name: str, *, revision: str | None) -> Any:
        self.asked.append(name)
        return SimpleNamespace(parameter_count=counted(self.folder / name))


def test_of_files_on_the_hub_the_headers_alone_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", w=HALF.bfloat16())
    saved(tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors", w=HALF)
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    assert stored_formats("somebody/some-model", None, ["unet"]) == {"unet": {"BF16": 12}}
    assert hub.asked == ["unet/diffusion_pytorch_model.safetensors"]


def test_a_hub_that_can_not_be_reached_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = huggingface_hub.errors.HfHubHTTPError.__bases__[0]  # as where there is no network
    unreachable = type("ConnectError", (kind,), {"__init__": lambda self: None})

    class NoHub:
        def model_info(self, *_: object, **__: object) -> None:
            raise unreachable

    monkeypatch.setattr(huggingface_hub, "HfApi", NoHub)
    assert stored_formats("somebody/some-model", None, ["unet"]) == {}


def test_no_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's files, of which only the headers can be read."""
    read = 0
    original = Path.open

    def watched(self: Path, *args: Any, **kwargs: Any) -> Any:
        file = original(self, *args, **kwargs)
        if self.suffix == ".safetensors":
            plain = file.read

            def count(size: int) -> bytes:
                nonlocal read
                read += size
                return bytes(plain(size))

            file = _Counted(file, count)
        return file

    monkeypatch.setattr(Path, "open", watched)
    assert stored_formats(str(demo.PIPELINE), None, ["unet"]) == {"unet": {"F16": 4_283_012}}
    assert 8 < read < 200_000


class _Counted:
    def __init__(self, file: Any, read: Any) -> None:
        self.file, self.read = file, read

    def __enter__(self) -> "_Counted":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
