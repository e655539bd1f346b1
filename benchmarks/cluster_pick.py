"""Does a search on a Ray cluster of four nodes pick what a search of this machine alone picks?

    python benchmarks/cluster_pick.py [--folder DIR]

Both are `autotune search` of the demo with 3 steps and the same seed, with real trials. The four nodes are of this
machine, on the loopback interface (ray.cluster_utils.Cluster), with one pretended card each. On few cores, four trials
disturb one another's timings. So timings are taken as they come (AUTOTUNE_BUSY=accept), a trial computes on one thread
(OMP_NUM_THREADS=1: threads that wait for one another wait long there), and the space is chosen so that the pick is
ahead. It has as many configs as the searches have trials, so both measure all of them. Of those that pass the limit on
quality, DeepCache without 8-bit layers is far ahead: it computes one of three steps in full, and 8 bits cost more than
they save here.

Printed: whether both measured the same configs, whether their pictures are the same bit for bit, which trials failed,
both picks with their confirmed ratios, the exit codes, and the processes that are left 10 s after each search. With
--folder, the studies are kept there, and the same command continues them. The exit status is 1 where something differs
that must not: configs, pictures, failures, the pick, or a process that is left.
"""

import argparse
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from autotune.config import Config
from autotune.knobs import all_knobs
from autotune.production.tuned_config import TunedConfig
from autotune.study.record import read_trials
from autotune.study_folder import StudyFolder
from autotune.trial import Failure, Trial

SPACE = """
[knobs]
cache = ["none", "deepcache:2", "deepcache:3"]
guidance_cutoff = [1.0, 0.3]
guidance_start = [0.0, 0.34]
quantization = ["none", "int8_dynamic"]
layerwise_casting = ["none", "float8_e4m3fn", "float8_e5m2"]
steps = ["workload", 1]
"""
PROMPTS = """a small blue star at the center on a yellow background
a large red circle at the top on a black background
a large green triangle at the right on a red background
a small white square at the left on a green background
"""
FREE = ("cache", "guidance_cutoff", "guidance_start", "quantization", "layerwise_casting", "steps")
CONFIGS = 24  # that the space allows: some of its values do not go together
MOST_DROP = 40  # 100 x (1 - SSIM): guidance that ends early loses 6, DeepCache 28, one step 93
NODES = 4
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 for a machine whose real address it has to find
MIB = 2**20
TOKEN = "AUTOTUNE_CLUSTER_PICK"  # in the environment of all that is started here
LEFT_AFTER_S = 10.0
WHERE = ("here", "on the cluster")


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of four nodes with one card each, beside its head."""
    from ray.cluster_utils import Cluster

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    os.environ.update(RAY_raylet_start_wait_time_s="300", RAY_enable_metrics_collection="0")  # on a busy machine
    where: dict[str, Any] = {"node_ip_address": LOOPBACK, "object_store_memory": 80 * MIB}
    quiet = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    head = {"num_cpus": 0, "resources": {}, **where, **quiet, **ports()}
    started: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES):
            started.add_node(num_cpus=1, resources={"card": 1}, **where, **ports())
        yield started.address
    finally:
        started.shutdown()


def ports() -> dict[str, int]:
    """Free ports for a node's agents: a node that has to ask them for theirs gives up on a busy machine."""
    names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in names]
        return {name: own.getsockname()[1] for name, own in zip(names, sockets, strict=True)}


def search(folder: Path, name: str, *options: str) -> tuple[StudyFolder, bool]:
    """Run `autotune search` into a study of this name; print how it ended. Returns it, and whether it ended well."""
    (folder / "space.toml").write_text(SPACE)
    (folder / "prompts.txt").write_text(PROMPTS)
    command = [sys.executable, "-P", "-m", "autotune.cli", "search", "--pipeline", "demo", "--device", "cpu"]
    command += ["--steps", "3", "--seed", "0", "--space", str(folder / "space.toml"), "--budget", str(CONFIGS)]
    command += [word for knob in sorted(all_knobs().keys() - set(FREE)) for word in ("--exclude", knob)]
    command += ["--prompts", str(folder / "prompts.txt"), "--scorer", "none", "--max-quality-drop", str(MOST_DROP)]
    command += ["--quick", "--confirm-pairs", "8", "--no-reuse", "--isolation", "fork"]
    command += ["--study", str(folder / name), *options]
    began = time.monotonic()
    with (folder / f"{name}.txt").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    took_s = time.monotonic() - began
    study = StudyFolder(folder / name)
    trials = read_trials(study) if study.study.exists() else []
    time.sleep(LEFT_AFTER_S)
    left = ours()
    cards = len({trial.card for trial in trials})
    print(f"{name}: exit code {code}, {len(trials)} trials, {cards} cards, {took_s / 60:.0f} min")
    print(f"{name}: {len(left)} processes are left after {LEFT_AFTER_S:.0f} s", *left, sep="\n  ", flush=True)
    return study, code == 0 and not left


def ours() -> list[str]:
    """The command lines of what was started here and is autotune's, but for this process."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if process.name.isdecimal() and int(process.name) != os.getpid():
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if words.startswith("ray::perform"):  # which has its name where its environment was
                    process = Path("/proc") / (process / "stat").read_text().rpartition(")")[2].split()[1]
                elif "autotune" not in words:
                    continue
                if f"{TOKEN}={os.environ[TOKEN]}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append(words)
    return found


def compare(local: StudyFolder, other: StudyFolder) -> bool:
    """Print what is equal. Returns whether all is that must be."""
    here, there = ({trial.config: trial for trial in read_trials(folder)} for folder in (local, other))
    both = [config for config in here if config in there]
    print(f"configs: {len(here)} here, {len(there)} on the cluster, {len(both)} of them in both")
    measured = [config for config in both if here[config].measured and there[config].measured]
    drawn = {config: (pictures(local, here[config]), pictures(other, there[config])) for config in measured}
    alike = [config for config, (one, another) in drawn.items() if one and one == another]
    count = sum(len(drawn[config][0]) for config in alike)
    print(
        f"pictures: the same bit for bit in {len(alike)} of {len(measured)} configs measured in both ({count} pictures)"
    )
    failures = [failed(trials.values()) for trials in (here, there)]
    for where, found in zip(WHERE, failures, strict=True):
        print(f"failures {where}: {', '.join(found) or 'none'}")
    picks = [TunedConfig.load(folder.best) for folder in (local, other)]
    for where, pick in zip(WHERE, picks, strict=True):
        print(f"pick {where}: {words(pick.config)}: {ratios(pick)}")
    same = picks[0].config == picks[1].config
    print(f"the picks are {'the same' if same else 'NOT the same'}")
    return len(here) == len(there) == len(both) and alike == measured and failures[0] == failures[1] and same


def pictures(folder: StudyFolder, trial: Trial) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder.trial(trial.number) / "images").glob("*.png"))}


def failed(trials: Iterable[Trial]) -> list[str]:
    return sorted(f"{words(t.config)} ({t.outcome.cause})" for t in trials if isinstance(t.outcome, Failure))


def words(config: Config) -> str:
    return " ".join(f"{name}={config[name]}" for name in FREE)


def ratios(pick: TunedConfig) -> str:
    """How many times the baseline's speed, with its 95 % interval; on a second card, too, where there was one."""
    second = pick.confirmation.second_card if pick.confirmation else None
    found = {"confirmed": pick.speedup, "on a second card": second.verdict if second else None}
    said = [f"{how} {v.speedup:.2f}x ({v.low:.2f} to {v.high:.2f}, {v.pairs} rounds)" for how, v in found.items() if v]
    return ", ".join(said) or "not confirmed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the studies here; the same command continues them")
    options = parser.parse_args()
    os.environ.update({TOKEN: secrets.token_hex(8), "AUTOTUNE_BUSY": "accept", "OMP_NUM_THREADS": "1"})
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        print(f"python benchmarks/cluster_pick.py, on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it")
        with cluster() as address:
            other, is_well = search(folder, "cluster", "--workers", str(NODES), "--address", address)
        print(f"load {os.getloadavg()[0]:.1f} at its end", flush=True)
        local, is_well_too = search(folder, "local")
        print(f"load {os.getloadavg()[0]:.1f} at its end", flush=True)
        is_alike = local.best.exists() and other.best.exists() and compare(local, other)
        return 0 if is_well and is_well_too and is_alike else 1


if __name__ == "__main__":
    sys.exit(main())
