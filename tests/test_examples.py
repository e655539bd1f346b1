"""The examples run as they say: the server is started and called over loopback, and the scripts draw pictures."""

import io
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import make_target
from made_up import measured, record
from PIL import Image

import autotune
from autotune.devices import find_device
from autotune.tuning.export import export

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = make_target(find_device("cpu"), batch=2)
    target = target.model_copy(update={"workload": target.workload.model_copy(update={"steps": 2})})
    path = tmp_path_factory.mktemp("examples") / "best.json"
    export(record(target), measured(1), measured(0), None).save(path)
    return path


@pytest.fixture(scope="module")
def address(best: Path) -> Iterator[str]:
    """The address of the running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "server:app", "--port", str(port)]
    with (best.parent / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, "CONFIG": str(best)}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while b"Uvicorn running" not in (best.parent / "log.txt").read_bytes():
            assert server.poll() is None, (best.parent / "log.txt").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/picture"
    finally:
        server.terminate()
        server.wait(timeout=60)


def request_picture(address: str, **parameters: object) -> Image.Image:
    with urllib.request.urlopen(f"{address}?{urllib.parse.urlencode(parameters)}", timeout=120) as response:
        assert response.headers["content-type"] == "image/png"
        return Image.open(io.BytesIO(response.read()))


def test_the_server_draws_the_requested_picture(address: str) -> None:
    first, again, other = (request_picture(address, prompt="a red circle", seed=seed) for seed in (7, 7, 8))
    assert first.size == (64, 64)
    assert first.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize("parameters", [{"prompt": " "}, {"prompt": "x" * 1001}, {"prompt": "a", "seed": -1}, {}])
def test_the_server_refuses_a_bad_request(address: str, parameters: dict[str, object]) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        request_picture(address, **parameters)
    assert caught.value.code == 422
    caught.value.close()


def test_the_batch_script_draws_every_prompt(best: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\na blue star\na green square\n")
    command = [
        sys.executable,
        str(EXAMPLES / "batch.py"),
        str(best),
        str(tmp_path / "prompts.txt"),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    pixels = [Image.open(path).tobytes() for path in sorted((tmp_path / "out").iterdir())]
    assert len(set(pixels)) == 3


def test_the_comparison_shows_both_configs(best: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    tuned = autotune.TunedConfig.load(best)
    tuned.model_copy(update={"knobs": {}}).save(baseline)
    command = [sys.executable, str(EXAMPLES / "comparison.py"), str(baseline), str(best)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [str(baseline), str(best)]
    with Image.open(tmp_path / "comparison.png") as sheet:
        assert sheet.size == (len(tuned.workload.prompts[:4]) * 64, 2 * 64)
