"""A child process that measures nothing and loads no torch: it answers with figures from a folder of the test.

    python -P fake_child.py FOLDER

A file NUMBER.hang in that folder makes the trial of this number hang, with a descendant, as long as the file is there.
In factors.json, "KNOB=VALUE" -> by which factor a config with this value takes longer.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

folder, control = Path(sys.argv[1]), Path(os.environ["FAKE_CONTROL"])
job = json.loads((folder / "job.json").read_text())


def hang(while_there: Path) -> None:
    from autotune.worker.main import die_with_parent

    die_with_parent()
    Path(os.environ["AUTOTUNE_TIMED"]).touch()  # others may load now
    sleeper = subprocess.Popen(["sleep", "600"])
    written = control / f"{folder.name}.writing"
    written.write_text(f"{os.getpid()} {sleeper.pid} {os.getppid()}")
    written.rename(control / f"{folder.name}.pids")  # whole, or not there
    while while_there.exists():
        time.sleep(0.1)
    sleeper.kill()


answer = json.loads((control / f"{job['kind']}.json").read_text())
if job["kind"] == "measure":
    if folder.parent.name == "trials" and (control / f"{folder.name}.hang").exists():
        hang(control / f"{folder.name}.hang")
    factors = json.loads((control / "factors.json").read_text())
    factor = math.prod(factors.get(f"{name}={value}", 1.0) for name, value in job["values"].items())
    answer["latency_samples_s"] = [factor * seconds for seconds in answer["latency_samples_s"]]
    (folder / "images").mkdir()
    for index in range(len(job["target"]["workload"]["prompts"])):
        shutil.copy(control / "picture.png", folder / "images" / f"{index:03d}.png")
(folder / "outcome.json").write_text(json.dumps({"result": answer}))
