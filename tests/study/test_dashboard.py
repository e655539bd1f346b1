"""study.db opens in optuna-dashboard, as the README says."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "reports" / "demo-cpu"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """optuna-dashboard on a copy of the study that ships, since it may write to it."""
    shutil.copy(STUDY / "study.db", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "optuna-dashboard"), "sqlite:///study.db", "--port", str(port)]
    with (tmp_path / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(timeout=30)


def answer(url: str) -> bytes:
    """The server's answer, once it is up."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return bytes(response.read())
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"{url} never answered")


def test_optuna_dashboard_starts_and_knows_the_study(address: str) -> None:
    assert b"<html" in answer(f"{address}/dashboard").lower()
    studies = json.loads(answer(f"{address}/api/studies"))["study_summaries"]
    assert [study["study_name"] for study in studies] == ["autotune"]
    trials = json.loads(answer(f"{address}/api/studies/{studies[0]['study_id']}?after=0"))["trials"]
    assert [trial["state"] for trial in trials] == ["Complete"] * 8
