"""Showcase: remakes the demo's study, its pictures, the outputs pasted into the docs, and the README's pictures.

python -m tools.showcase             every step, in order; on idle cores, about an hour
python -m tools.showcase demo report only these

Each step leaves files below reports/, and what it left of an earlier run is replaced when it has ended. `python -m
tools.docs` then puts outputs, figures and tables into the README and the docs.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from autotune.devices import find_device

ROOT = Path(__file__).parent.parent
REPORTS = ROOT / "reports"
OUTPUTS = REPORTS / "showcase"
WORK = ROOT / "build" / "showcase"
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "latency_agrees": (),
    "load_overhead": ("--rounds", "9"),
    "trial_overhead": (),
    "cold_start": (),
    "fit_error": (),
}
CUT = re.compile(r"(^|/)(job\.json|outcome\.json|log\.txt|log\.json|score|probe|probe\.json|cache|\.lock)($|/)")


def run(words: Sequence[str], *, cwd: Path = WORK, environ: dict[str, str] | None = None) -> tuple[str, float]:
    """What a command prints, and the seconds that it takes. Raises SystemExit where it fails."""
    started = time.monotonic()
    env = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT), **(environ or {})}
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"showcase: {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout, time.monotonic() - started


def autotune(line: str) -> tuple[str, float]:
    """Run `autotune LINE` in the work folder."""
    return run([sys.executable, "-m", "autotune.cli", *line.split()])


def where() -> str:
    """The day, the device and the version of torch."""
    cores = len(os.sched_getaffinity(0))
    return f"{date.today()}, {find_device('cpu').name} ({cores} cores), torch {version('torch')}"


def record(name: str, shown: str, output: str, seconds: float) -> None:
    """Keep an output for the docs: when and where, the command as it is shown, what it printed."""
    took = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    OUTPUTS.mkdir(exist_ok=True)
    lines = [line.rstrip().replace(f"{WORK}/", "") for line in output.rstrip().splitlines()]
    (OUTPUTS / f"{name}.txt").write_text(
        "\n".join([f"# {where()}, {took}", f"$ {shown}", *lines, ""]), encoding="utf-8"
    )


def demo() -> None:
    """What `make demo` prints, from a fresh folder: the command is read off the Makefile."""
    found = re.search(
        r"^demo: .*\n\t\$\(RUN\) -m autotune\.cli (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
    )
    assert found
    shutil.rmtree(WORK / "demo-study", ignore_errors=True)
    record("demo", "make demo", *autotune(found[1]))


def study() -> None:
    """The study that the docs show, with full care, and what each setting of its pick brings."""
    shutil.rmtree(WORK / "demo-cpu", ignore_errors=True)
    autotune("search --pipeline demo --budget 8 --study demo-cpu")
    output, seconds = autotune("ablate demo-cpu")
    record("ablate", "autotune ablate demo-cpu", output, seconds)
    autotune("report demo-cpu")
    target = REPORTS / "demo-cpu"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(WORK / "demo-cpu", target, ignore=_left_out)
    text, _ = autotune("verify demo-cpu/best.json")
    seen = f"# {where()}\n$ autotune verify best.json\n{text}"
    (REPORTS / "benchmarks" / "verify.txt").write_text(seen, encoding="utf-8")


def _left_out(folder: str, names: list[str]) -> set[str]:
    """To keep it small: jobs, logs, scores, and the pictures of the confirmation and the ablation."""
    here = Path(folder).relative_to(WORK / "demo-cpu")
    inside = here.parts[:1]
    pictures = {n for n in names if n == "images" and inside and inside[0] in ("confirm", "ablation")}
    return pictures | {name for name in names if CUT.search(str(here / name))}


def fit() -> None:
    record("fit", "autotune fit --pipeline flux-dev --vram 12GB", *autotune("fit --pipeline flux-dev --vram 12GB"))


def ladder() -> None:
    folder = REPORTS / "ladder-demo-cpu"
    shutil.rmtree(WORK / "ladder", ignore_errors=True)
    record("ladder", "autotune ladder --pipeline demo", *autotune("ladder --pipeline demo -o ladder"))
    for name in ("ladder.md", "ladder.json"):
        shutil.copy(WORK / "ladder" / name, folder / name)


def selftest() -> None:
    line = "selftest --pipeline demo --pairs 20"
    output, seconds = autotune(line)
    record("selftest", f"autotune {line}", output, seconds)
    seen = f"# {where()}\n$ autotune {line}\n{output}"
    (REPORTS / "selftest-demo-cpu" / "selftest.txt").write_text(seen, encoding="utf-8")


def benchmarks() -> None:
    """The figures of the tool itself. search_cost.py takes hours and reads recorded tables: it is not run again."""
    for name, words in BENCHMARKS.items():
        output, _ = run([sys.executable, f"benchmarks/{name}.py", *words], cwd=ROOT)
        line = " ".join(["python", f"benchmarks/{name}.py", *words])
        (REPORTS / "benchmarks" / f"{name}.txt").write_text(f"# {where()}\n$ {line}\n{output}", encoding="utf-8")
    best = "reports/demo-cpu/best.json"
    output, _ = run([sys.executable, "benchmarks/latency_agrees.py", best], cwd=ROOT)
    with (REPORTS / "benchmarks" / "latency_agrees.txt").open("a", encoding="utf-8") as file:
        file.write(f"\n$ python benchmarks/latency_agrees.py {best}\n{output}")


def tunes() -> None:
    """Which settings can act on which pipeline: the README's table."""
    run([sys.executable, "-m", "tools.docs.tunes"], cwd=ROOT)


def notebook() -> None:
    """examples/demo.ipynb for real, search and all. It keeps no outputs."""
    import nbclient
    import nbformat

    shutil.rmtree(WORK / "notebook-study", ignore_errors=True)
    cells = nbformat.read(ROOT / "examples" / "demo.ipynb", as_version=4)
    nbclient.NotebookClient(cells, timeout=1800, resources={"metadata": {"path": str(WORK)}}).execute()


def pictures() -> None:
    """The README's pictures, light and dark, from the study's report."""
    run([sys.executable, "reports/screenshots.py", "reports/demo-cpu"], cwd=ROOT)


def docs() -> None:
    """The outputs and tables of the pages."""
    run([sys.executable, "-m", "tools.docs"], cwd=ROOT)


STEPS: dict[str, Callable[[], None]] = {
    step.__name__: step for step in (fit, demo, study, ladder, selftest, benchmarks, notebook, tunes, pictures, docs)
}


def main() -> None:
    names = sys.argv[1:] or list(STEPS)
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise SystemExit(f"showcase: no step is called {unknown[0]!r}; there are {', '.join(STEPS)}")
    WORK.mkdir(parents=True, exist_ok=True)
    print(f"showcase on {find_device('cpu').name}, {platform.system()}: {', '.join(names)}")
    for name in names:
        started = time.monotonic()
        STEPS[name]()
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
