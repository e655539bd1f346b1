"""outcomes: the pages of outcomes, exit codes and environment variables, made from the code that defines them."""

import re
from pathlib import Path
from typing import get_args

from autotune import isolation
from autotune.cli import exits
from autotune.execution.variables import REFUSED, trial_environment
from autotune.trial import NOT_THE_CONFIG, Cause

# What each cause means and what to do. A test holds that every cause is here.
CAUSES = {
    "out_of_memory": "The config needs more memory than there is, or more than `--max-vram` or `--max-ram` allow.",
    "timeout": "The trial took longer than `--timeout`. Compiling with `max-autotune` on a busy machine may.",
    "crash": "The process was killed or ended without an answer, as by a fault in a driver. Its `log.txt` says more.",
    "unsupported": "A library says that it can't do this here.",
    "no_effect": "The setting changed nothing. The value leaves the search space once nothing else can be why.",
    "broken_output": "The pictures are black, flat, noise, NaN, of the wrong size, or the same for several prompts.",
    "error": "A library raised an exception. The reason has its last line, `log.txt` has all of it.",
    "environment": "The machine's fault, such as a full disk. The trial is tried again; the sampler is not told.",
    "throttled": "The device slowed down while the calls were timed. Cool it, or lower its power limit for good.",
    "contended": "Other processes used the device while the calls were timed. End them, or set `AUTOTUNE_BUSY=accept`.",
    "noisy": "The timed calls scatter too much for a median. Use a quieter machine, or set `AUTOTUNE_BUSY=accept`.",
    "bad_input": "The input can't be used. The command ends with the reason.",
}

# Variables of the user. A test holds that every variable of ours that the code reads is here, or is one between
# processes (autotune/isolation.py).
READ = {
    "AUTOTUNE_BUSY": "`accept`: timings are taken as they come, for machines that are never idle.",
    "AUTOTUNE_HUB_KERNELS": "`accept`: attention kernels of the Hugging Face hub, which are code, may be run.",
    "XDG_CACHE_HOME": "Where caches are kept. Default: `~/.cache`; without a home folder, the temporary folder.",
    "TMPDIR": "Where scratch folders of jobs are made.",
    "HF_HOME, HF_TOKEN, HF_HUB_OFFLINE": "Read by huggingface_hub: where downloads are kept, the token, no network.",
    "CUDA_VISIBLE_DEVICES": "Which GPUs are seen, and in which order `cuda:0`, `cuda:1` count them.",
}


def outcomes_page() -> str:
    again = ", ".join(f"`{cause}`" for cause in get_args(Cause) if cause in NOT_THE_CONFIG)
    return "\n\n".join(
        [
            "# Outcomes and exit codes",
            "## Outcomes of a trial",
            "A trial ends with a measurement, or with a failure of one of these causes. Both are kept in "
            "`trials/*/trial.json`. A dominated trial may end as `stopped`: its pictures are not drawn.",
            table(("cause", "meaning"), [(f"`{cause}`", CAUSES[cause]) for cause in get_args(Cause)]),
            f"The causes {again} may be gone at another time. Such a config is tried again.",
            "## Exit codes",
            table(("code", "meaning"), exit_codes()),
            "After 130 and 143, and after 3 of a search, the same command continues.",
        ]
    )


def exit_codes() -> list[tuple[str, str]]:
    """The constants of autotune/cli/exits.py, with what the comments beside them say."""
    source = Path(exits.__file__).read_text(encoding="utf-8")
    found = re.findall(r"^([A-Z_]+) = (\d+)(?:  # (.*))?$", source, re.M)
    return [(f"`{code}`", f"{_named(name)}{': ' if why else ''}{why}") for name, code, why in found]


def _named(name: str) -> str:
    return name.replace("_", " ").capitalize()


def environment_page() -> str:
    source = Path(isolation.__file__).read_text(encoding="utf-8")
    ours = [(f"`{name}`", why) for name, why in re.findall(r'^[A-Z_]+ = "(AUTOTUNE_\w+)"  # (.*)$', source, re.M)]
    read = [(f"`{name.replace(', ', '`, `')}`", why) for name, why in READ.items()]
    given = ", ".join(f"`{name}`" for name in trial_environment(Path("cache")))
    return "\n\n".join(
        [
            "# Environment variables",
            "## Read",
            table(("variable", "meaning"), read),
            "## Refused",
            "With these, no figure would be true. A command that measures ends with a sentence.",
            table(("variable", "why"), [(f"`{name}`", why) for name, (_, why) in REFUSED.items()]),
            "## Recorded",
            "Libraries read many more, such as `TORCHINDUCTOR_...`, `OMP_...` or `CUBLAS_...`. Those that may "
            "change what is measured are recorded in each trial, and are in the fingerprint of an exported config.",
            "## Set for the processes of trials",
            f"{given}. The others identify a process to its parent:",
            table(("variable", "meaning"), ours),
        ]
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
