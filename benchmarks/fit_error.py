"""The error of the estimate behind `autotune fit`: predicted bytes of weights against those of live pipelines.

    python benchmarks/fit_error.py [STUDY ...]

Without arguments, it builds the demo and a tiny pipeline of each family (tests/tiny.py) in each number format, and sums
the bytes of all their weights as torch holds them, quantized ones by their inner tensors. That checks how weights are
counted, on any machine. It does not check what an offload holds on a GPU at the same time, nor activations.

For each study, it prints by how much the measured peak of each trial exceeds the predicted weights. The rest are
activations, the libraries' workspaces and the CUDA context, so a peak below the prediction is an error. On a CPU the
weights may be mapped from their files, and are then not counted by the kernel until they are read.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autotune.pipelines.parts import DENOISERS

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

FORMATS: tuple[dict[str, str], ...] = (
    {"dtype": "fp32"},
    {"dtype": "fp16"},
    {"dtype": "bf16"},
    {"dtype": "bf16", "layerwise_casting": "float8_e4m3fn"},
    {"dtype": "bf16", "quantization": "int8_weight_only"},
    {"dtype": "bf16", "quantization": "fp8_weight_only"},
    {"dtype": "bf16", "quantization": "int8_dynamic"},
    {"dtype": "bf16", "quantization": "int4_weight_only"},
)


def held_bytes(pipe: Any) -> int:
    """The bytes of the pipe's floating-point weights, shared ones once."""
    import torch

    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [t for model in models for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    return sum(_bytes(tensor) for tensor in {id(tensor): tensor for tensor in tensors}.values())


def _bytes(tensor: Any) -> int:
    data = getattr(tensor, "data", tensor)
    if not hasattr(data, "__tensor_flatten__"):
        return int(tensor.numel() * tensor.element_size())
    names, _ = data.__tensor_flatten__()
    return sum(_bytes(getattr(data, name)) for name in names)


def predicted_and_held(pipeline: Any, parts: tuple[Any, ...], values: dict[str, str]) -> tuple[int, int]:
    """The bytes of all weights of a pipeline under these values: predicted from its components, and as built."""
    from conftest import make_target

    from autotune.building import build
    from autotune.knobs import complete, find_knob, footprint

    config = complete(values)
    denoiser = next(part.name for part in parts if part.name in DENOISERS)
    pipe = build.load(pipeline, config, "cpu")
    for name in values:  # the knobs that change the weights, and no others
        apply = find_knob(name).apply
        assert apply is not None
        apply(pipe, config, "cpu")
    return footprint(config, make_target(components=parts, denoiser=denoiser)).weights_bytes, held_bytes(pipe)


def pipelines(folder: Path) -> Iterator[Any]:
    """The demo, and a tiny pipeline of each family, saved in this folder."""
    from tiny import FAMILIES, tiny_checkpoint

    from autotune.pipelines import resolve

    yield resolve("demo")
    for family in FAMILIES:
        yield resolve(str(tiny_checkpoint(family, folder / family)))


def of_live_pipelines() -> None:
    from autotune.pipelines.components import components_of

    errors = []
    with tempfile.TemporaryDirectory() as folder:
        for pipeline in pipelines(Path(folder)):
            parts = components_of(pipeline)
            for values in FORMATS:
                predicted, held = predicted_and_held(pipeline, parts, values)
                errors.append(predicted / held - 1)
                what = f"{pipeline.slug} {' '.join(f'{name}={value}' for name, value in values.items())}"
                print(f"{what}: {predicted} bytes predicted, {held} held, error {errors[-1]:+.2%}", flush=True)
    print(f"largest error of {len(errors)}: {max(errors, key=abs):+.2%}")


def of_study(path: Path) -> None:
    from autotune.knobs import footprint
    from autotune.study.record import read_record, read_trials
    from autotune.study_folder import StudyFolder

    record, below = read_record(StudyFolder(path)), 0
    if not record.target.pipeline.known.components:
        print(f"{path}: this study is of an earlier version, which did not count the weights", file=sys.stderr)
        return
    for trial in read_trials(StudyFolder(path)):
        if trial.measured is not None:
            predicted = footprint(trial.config, record.target).resident_bytes
            rest = trial.measured.peak_memory_bytes - predicted
            below += rest < 0
            print(f"{path}, trial {trial.number}: {predicted} bytes of weights predicted, {rest:+d} at the peak")
    print(f"{path}: {below} peaks below the prediction")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", type=Path)
    studies = parser.parse_args().studies
    for path in studies:
        of_study(path)
    if not studies:
        of_live_pipelines()


if __name__ == "__main__":
    main()
