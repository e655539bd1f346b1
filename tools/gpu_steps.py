"""Steps of `make gpu`: what each runs and keeps, and which feature it shows. Data only; tools/gpu.py runs them.

The minutes that a step takes are estimates from published figures: no step has run on a GPU. One that is cut off at the
limit is "unfinished", and the same command continues it.
"""

from tools.gpu_ladders import LADDER_STEPS, PROMPTS
from tools.gpu_step import Step

PYTEST = "python -m pytest -q -p no:cacheprovider -m gpu tests/gpu"


def search(name: str, shows: str, options: str, *, least: int) -> Step:
    return Step(
        name,
        shows,
        (
            f"autotune search --device cuda {options} --time-budget {{search_s}}s --study {{work}}/study",
            f"python -m tools.gpu_checks search {{work}}/study {least}",
        ),
        keep=("study/study.json", "study/best.json", "study/report.md", "study/pictures.png"),
        files={"prompts.txt": PROMPTS},
        search_s=240.0,
    )


RANDOM = "--weights random --size 1024x1024 --prompts {work}/prompts.txt --confirm-rounds 1 --confirm-pairs 4"
FIRST_CONTACT = Step(
    "first-contact",
    "probe, watch, memory cap, time limit, out of memory, fork; then one search of 6 trials",
    (
        f"{PYTEST}/test_first_contact.py",
        "autotune search --pipeline demo --device cuda --budget 6 --exclude compile --confirm-rounds 0"
        " --confirm-pairs 0 --study {work}/study",
        "python -m tools.gpu_checks search {work}/study 6",
    ),
    keep=("study/study.json", "study/best.json", "study/report.md"),
    limit_s=180.0,
)
STEPS = (
    FIRST_CONTACT,
    Step("knobs", "settings of the demo that act on a GPU only", (f"{PYTEST}/test_cuda.py",)),
    search("search-sd15", "a search of SD 1.5, 1024x1024", f"--pipeline sd15 {RANDOM}", least=5),
    search("search-sdxl", "a search of SDXL, 1024x1024", f"--pipeline sdxl {RANDOM}", least=3),
    Step(
        "latency-agrees",
        "a measured latency beside that of a plain loop",
        ("python benchmarks/latency_agrees.py --device cuda",),
    ),
    Step(
        "a-a",
        "the baseline against itself: SD 1.5, 10 steps",
        (
            "autotune selftest --pipeline sd15 --weights random --steps 10 --pairs 8 --device cuda --json"
            " > {work}/selftest.json",
            "python -m tools.gpu_checks selftest {work}/selftest.json",
        ),
        keep=("selftest.json",),
    ),
    Step(
        "cold-start",
        "the first picture of a fresh process: eager, compiled, with artifacts",
        (
            "autotune search --pipeline demo --device cuda --budget 1 --confirm-rounds 0 --confirm-pairs 0"
            " --study {work}/study",
            "autotune export {work}/study --pick 0 -o {work}/baseline.json",
            "python benchmarks/cold_start.py {work}/baseline.json",
        ),
    ),
    Step(
        "compat",
        "every pair of settings on tiny pipelines",
        (
            "python -m autotune.compat --device cuda -o {work}/compat.json --limit-s 380",
            "python -m tools.gpu_checks compat {work}/compat.json",
        ),
        keep=("compat.json",),
    ),
    *LADDER_STEPS,
)


def names(beginning: str) -> tuple[str, ...]:
    """The steps whose name begins so."""
    return tuple(step.name for step in STEPS if step.name.startswith(beginning))


# feature, where it was seen on a CPU (Markdown), the steps that show it on a GPU
FEATURES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Finding the card: memory, kernels, formats, compiler", "the processor only", ("first-contact",)),
    ("Children: forked, killed at their time limit, out of memory", "by the tests", ("first-contact",)),
    ("Memory: peaks by phase, a cap that makes a smaller card", "peaks, by the tests", ("first-contact", "knobs")),
    ("The watch: clock, temperature, other processes; energy", "other processes", ("first-contact", "knobs")),
    (
        "A search of the demo, from trials to the pick",
        "[report.html](reports/demo-cpu/report.html)",
        ("first-contact",),
    ),
    ("... of SD 1.5 and SDXL at full size, confirmed", "never", ("search-sd15", "search-sdxl")),
    ("Forced SDPA kernels, CUDA graphs, offload, TF32", "never", ("knobs",)),
    ("Every pair of settings", "in part: [compat-cpu.json](reports/compat-cpu.json)", ("compat",)),
    (
        "A measured latency is that of a plain loop",
        "[latency_agrees.txt](reports/benchmarks/latency_agrees.txt)",
        ("latency-agrees",),
    ),
    (
        "The baseline against itself (A/A)",
        "[selftest.txt](reports/selftest-demo-cpu/selftest.txt)",
        ("a-a",),
    ),
    (
        "Cold start: eager, compiled, with artifacts",
        "[cold_start.txt](reports/benchmarks/cold_start.txt)",
        ("cold-start",),
    ),
    (
        "Ladder of the fast-diffusion guide",
        "the demo: [ladder.md](reports/ladder-demo-cpu/ladder.md)",
        names("ladder-sdxl"),
    ),
    ("Ladder of the memory tutorial", "never", names("ladder-memory")),
    ("Ladder of token merging", "never", names("ladder-tome")),
    ("Ladder of the PyTorch 2.0 guide", "never", names("ladder-torch2")),
    ("What fits: `autotune fit`'s estimates", "[fit_error.txt](reports/benchmarks/fit_error.txt)", ()),
    ("GPUs of AMD, Apple and Intel", "the rules, with fakes", ()),
)
