"""Tests that need a GPU: the ladders and tables of the published guides at full size, with random weights.

    pytest tests/gpu -m gpu        or, with the set-up: make gpu

Each test runs one command of the README, takes at most ten minutes, and writes one JSON and one Markdown table (or the
matrix) into the folder that GPU_REPORTS names (default: reports/gpu). Without `-m gpu` none of them is collected.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

REPORTS = Path(os.environ.get("GPU_REPORTS", "reports/gpu"))
TEN_MINUTES_S = 600.0
LADDERS = {
    "sdxl-fast-diffusion": "--pipeline sdxl --recipe fast-diffusion --size 1024x1024 --steps 30",
    "sd15-memory": "--pipeline sd15 --recipe memory --size 512x512 --steps 50",
    **{
        f"sd15-tome-{side}": f"--pipeline sd15 --recipe tome --size {side}x{side} --steps 50"
        for side in (512, 768, 1024)
    },
    **{
        f"{pipeline}-torch2-{batch}": f"--pipeline {pipeline} --recipe torch2 --size 512x512 --steps 50 --batch {batch}"
        for pipeline in ("sd15", "sd15-img2img", "sd15-inpaint", "sd15-controlnet")
        for batch in (1, 4, 16)
    },
}


def run(command: str) -> float:
    """Run the command; returns its seconds. pytest shows its output."""
    started = time.monotonic()
    strict = {name: value for name, value in os.environ.items() if name != "AUTOTUNE_BUSY"}  # a user's default
    subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True, env=strict)
    return time.monotonic() - started


@pytest.mark.parametrize("name", LADDERS)
def test_a_ladder_of_a_published_guide(name: str) -> None:
    """Every rung is measured or says why not; at least the first two are measured, or there is nothing to compare."""
    folder = REPORTS / name
    seconds = run(f"autotune.cli ladder {LADDERS[name]} --weights random --device cuda -o {shlex.quote(str(folder))}")
    rows = json.loads((folder / "ladder.json").read_text())["table"]
    assert (folder / "ladder.md").is_file()
    assert sum("latency_s" in row for row in rows) >= 2
    assert all("latency_s" in row or row["notes"] for row in rows)
    assert seconds < TEN_MINUTES_S


def test_the_compatibility_matrix() -> None:
    """Every pair of values runs, or is refused by a rule: a pair that fails is a rule that is missing."""
    path = REPORTS / "compat-cuda.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = run(f"autotune.compat --device cuda -o {shlex.quote(str(path))} --limit-s 540")
    matrix = json.loads(path.read_text())
    assert matrix["pipelines"]
    assert seconds < TEN_MINUTES_S
