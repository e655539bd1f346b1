"""A child process that measures nothing and loads no torch: it answers with figures from a folder of the test.

    python -P fake_child.py FOLDER

A file NUMBER.hang in that folder makes the trial of this number hang, with a descendant, as long as the file is there.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from autotune.worker.main import die_with_parent

die_with_parent()
folder, control = Path(sys.argv[1]), Path(os.environ["FAKE_CONTROL"])
job = json.loads((folder / "job.json").read_text())
if job["kind"] == "measure":
    hang = control / f"{folder.name}.hang"
    if hang.exists():
        sleeper = subprocess.Popen(["sleep", "600"])
        written = control / f"{folder.name}.writing"
        written.write_text(f"{os.getpid()} {sleeper.pid} {os.getppid()}")
        written.rename(control / f"{folder.name}.pids")  # whole, or not there
        while hang.exists():
            time.sleep(0.1)
        sleeper.kill()
    (folder / "images").mkdir()
    for index in range(len(job["target"]["workload"]["prompts"])):
        (folder / "images" / f"{index:03d}.png").write_bytes(b"a picture")
answer = json.loads((control / f"{job['kind']}.json").read_text())
(folder / "outcome.json").write_text(json.dumps({"result": answer}))
