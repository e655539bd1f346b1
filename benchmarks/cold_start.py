"""How long a fresh process takes to its first picture: uncompiled, compiled with empty caches, and with artifacts.

    python benchmarks/cold_start.py [best.json]

Without a config it uses the demo. A config that compiles nothing is compiled by regions. Each figure is from one fresh
process, from before `import torch` to the first picture, with an empty folder for caches. The artifacts are compiled
first.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import sys, time
begun = time.perf_counter()
import autotune
pipe = autotune.load(sys.argv[1], device=sys.argv[2], artifacts=sys.argv[3] == "artifacts")
pipe.set_progress_bar_config(disable=True)
loaded = time.perf_counter()
pipe("a small blue star at the center on a yellow background")
done = time.perf_counter()
print(f"{done - begun:.1f} s to the first picture, of it {done - loaded:.1f} s for the call")
"""


def first_picture(config: Path, device: str, how: str) -> str:
    """Start a fresh process; returns the line that it prints. `how`: "artifacts" uses the compiled code."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(config), device, how],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": f"{cache}/triton"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return done.stdout.splitlines()[-1]


def main() -> None:
    from load_overhead import save_config

    from autotune.production.tuned_config import TunedConfig
    from autotune.tuning.compile_artifacts import save_with_artifacts

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else save_config(folder)
        tuned = TunedConfig.load(given)
        if tuned.knobs.get("compile", "off") == "off":
            tuned = tuned.model_copy(update={"knobs": {**tuned.knobs, "compile": "regional"}})
        tuned = tuned.model_copy(update={"evidence_of": tuned.digest})
        eager = tuned.model_copy(update={"knobs": {**tuned.knobs, "compile": "off"}})
        eager.save(folder / "eager.json")
        save_with_artifacts(tuned, folder / "compiled.json")
        print(f"artifacts: {(folder / 'compiled.artifacts').stat().st_size / 1e6:.1f} MB")
        device = tuned.device.kind
        for what, name, how in (
            ("uncompiled", "eager.json", "none"),
            ("compiled, empty caches", "compiled.json", "none"),
            ("compiled, with artifacts", "compiled.json", "artifacts"),
        ):
            print(f"{what}: {first_picture(folder / name, device, how)}", flush=True)


if __name__ == "__main__":
    main()
