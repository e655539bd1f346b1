"""How much longer `autotune.load` takes than diffusers' own loading: the demo, all defaults, nothing compiled.

    python benchmarks/load_overhead.py [--rounds 5]

Each round starts two fresh processes, one after the other, and times both after torch and diffusers are imported: one
calls `from_pretrained`, the other `autotune.load` with a config of the same pipeline. The second also times its call of
from_pretrained. The rest is our overhead, which should be below 0.2 s. The package is compiled to bytecode first, as
pip does when it installs one.
"""

import argparse
import compileall
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import json, sys, time
import torch, diffusers, transformers
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from autotune import demo

spent = [0.0]
own = DiffusionPipeline.from_pretrained.__func__
def timed(cls, *args, **kwargs):
    begun = time.perf_counter()
    try:
        return own(cls, *args, **kwargs)
    finally:
        spent[0] += time.perf_counter() - begun
DiffusionPipeline.from_pretrained = classmethod(timed)

begun = time.perf_counter()
if sys.argv[1] == "plain":
    StableDiffusionPipeline.from_pretrained(demo.PIPELINE, dtype=torch.float32, use_safetensors=True).to("cpu")
else:
    import autotune
    autotune.load(sys.argv[1], device="cpu")
print(json.dumps([time.perf_counter() - begun, spent[0]]))
"""


def seconds(word: str) -> tuple[float, float]:
    """(seconds of loading, seconds in from_pretrained) in a fresh process. `word`: "plain", or an exported config."""
    done = subprocess.run([sys.executable, "-c", CHILD, word], stdout=subprocess.PIPE, text=True, check=True)
    whole, loading = json.loads(done.stdout.splitlines()[-1])
    return whole, loading


def save_config(folder: Path) -> Path:
    """The exported baseline of the demo, with made-up numbers, because only its loading is timed."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from conftest import make_target
    from made_up import measured, record

    from autotune import demo
    from autotune.devices import find_device
    from autotune.devices.probe import versions
    from autotune.pipelines.locate import revision_of
    from autotune.tuning.export import export

    target = make_target(find_device("cpu"))
    pipeline = target.pipeline.model_copy(update={"revision": revision_of(demo.PIPELINE)})
    target = target.model_copy(update={"pipeline": pipeline, "versions": versions()})
    export(record(target), measured(1), measured(0), None).save(folder / "best.json")
    return folder / "best.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    compileall.compile_dir(Path(__file__).parent.parent / "autotune", quiet=1)
    own_s = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(save_config(Path(folder)))
        for number in range(rounds):
            plain, (whole, loading) = seconds("plain")[0], seconds(path)
            own_s.append(whole - loading)
            overhead = f"of which {own_s[-1]:.2f} s overhead"
            print(f"round {number + 1}: from_pretrained {plain:.2f} s, load {whole:.2f} s, {overhead}")
    print(f"overhead, median: {statistics.median(own_s):.3f} s (should be below 0.2 s)")


if __name__ == "__main__":
    main()
