"""The examples run as they say: the server is called over loopback, the scripts and the notebook draw pictures."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbclient
import nbformat
import pytest
from conftest import make_target
from made_up import measured, record
from PIL import Image
from programs import run_program

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
        server = subprocess.Popen(
            command, env={**os.environ, "CONFIG": str(best), "LONGEST_QUEUE": "4"}, stdout=log, stderr=log
        )
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


def test_requests_that_wait_are_drawn_together_and_a_full_queue_says_so(address: str) -> None:
    def status(seed: int) -> int:
        try:
            request_picture(address, prompt="a red circle", seed=seed)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 200

    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(status, range(24)))
    assert set(answers) == {200, 503}
    assert answers.count(200) >= 4
    with urllib.request.urlopen(address.replace("/picture", "/health"), timeout=60) as response:
        assert json.load(response) == {"waiting": 0}


def test_the_batch_script_draws_every_prompt_that_has_no_picture_yet(best: Path, tmp_path: Path) -> None:
    """The pictures of the first call are there, as after a run that was stopped: they stay as they are."""
    (tmp_path / "prompts.txt").write_text("a cross\na ring\na red circle\na blue star\na green square\n")
    (tmp_path / "out").mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "out" / f"{number:03d}.png")
    done = run_program(EXAMPLES / "batch.py", best, tmp_path / "prompts.txt", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [f"{number:03d}.png" for number in range(5)]
    pictures = [Image.open(path).convert("RGB") for path in files]
    assert len({picture.tobytes() for picture in pictures}) == 5
    assert [picture.getpixel((0, 0)) for picture in pictures[:2]] == [(0, 0, 0), (1, 0, 0)]


def test_the_comparison_shows_both_configs(best: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    tuned = autotune.TunedConfig.load(best)
    tuned.model_copy(update={"knobs": {}}).save(baseline)
    done = run_program(EXAMPLES / "comparison.py", baseline, best, here=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [str(baseline), str(best)]
    with Image.open(tmp_path / "comparison.png") as sheet:
        assert sheet.size == (len(tuned.workload.prompts[:4]) * 64, 2 * 64)


STAND_IN = """
import shutil, types
import autotune

def search(study, **options):
    shutil.copytree({study!r}, study)
    shutil.copy({best!r}, study + "/best.json")
    trial = types.SimpleNamespace(number=0, origin="baseline", measured=types.SimpleNamespace(latency_s=1.0))
    return types.SimpleNamespace(tuned=autotune.TunedConfig.load(study + "/best.json"), trials=[trial])

autotune.search = search
"""


def test_the_notebook_runs(best: Path, tmp_path: Path) -> None:
    """From top to bottom. A finished study stands in for the search, which `make showcase` runs for real."""
    notebook = nbformat.read(EXAMPLES / "demo.ipynb", as_version=4)
    finished = tmp_path / "finished"
    finished.mkdir()
    Image.new("RGB", (64, 128)).save(finished / "pictures.png")
    stand_in = nbformat.v4.new_code_cell(STAND_IN.format(study=str(finished), best=str(best)))
    notebook.cells.insert(0, stand_in)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    assert not [output for output in shown if output.output_type == "error"]


def test_the_notebook_holds_no_outputs() -> None:
    notebook = nbformat.read(EXAMPLES / "demo.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_the_dockerfile_can_be_built_as_far_as_can_be_told_without_docker() -> None:
    """What it copies is here, its base is pinned, its command is a list, nobody serves as root, versions are ours."""
    root = EXAMPLES.parent
    text = (EXAMPLES / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    words = {word for word, _ in lines}
    assert words <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "CMD"}
    [base] = [rest for word, rest in lines if word == "FROM"]
    assert re.fullmatch(r"python:3\.1[1-9]-slim", base)
    copied = [source for word, rest in lines if word == "COPY" for source in rest.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "autotune", "search_spaces", "examples/server.py"} <= set(copied)
    assert [source for source in copied if not (root / source).exists()] == []
    assert [word for word, _ in lines].index("USER") < [word for word, _ in lines].index("CMD")
    command = json.loads(next(rest for word, rest in lines if word == "CMD"))
    assert command[:2] == ["uvicorn", "server:app"]
    assert "--constraint /build/constraints.txt" in text
