"""Options: the options that several commands share, and the functions that read their words.

Model and Call are groups: a command that has a parameter of such a type has all options of the group (grouped.py). An
option that says what is loaded or how it is called is written once, as a field here.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.errors import UserError
from autotune.frozen_model import absolute
from autotune.isolation import ISOLATIONS, Isolation

if TYPE_CHECKING:
    from autotune.config import Value
    from autotune.device import Device
    from autotune.pipeline import Weights as WeightsWord


MOST_ROUNDS = 1000  # of a comparison: days of a small pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What is loaded: a pipeline, and what is put on top of it. Those of resolve(), where they are described."""

    pipeline: Annotated[
        str, typer.Option(help="A preset (demo, sd15, sdxl, if-stage1 ...), a hub id, a folder or a .safetensors file.")
    ] = "demo"
    task: Annotated[
        str | None, typer.Option(help="Use the pipeline class for this task: text2image, image2image or inpainting.")
    ] = None
    controlnet: Annotated[
        list[str] | None,
        typer.Option(
            help="A ControlNet to load with it: a hub id or a local folder, or one of them and :WEIGHT. Repeat it."
        ),
    ] = None
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="A LoRA to fuse: a hub id, a folder or a .safetensors file, or one of them and :WEIGHT. Repeat it."
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="The diffusers class that takes the steps, as a LoRA for few steps needs, and :SETTING=VALUE,... "
            "Default: the pipeline's."
        ),
    ] = None
    ip_adapter: Annotated[
        str | None,
        typer.Option(
            help="An IP-Adapter: a .safetensors file, also owner/name:PATH of the hub, or one of them and :SCALE."
        ),
    ] = None
    textual_inversion: Annotated[
        list[str] | None,
        typer.Option(help="A textual inversion: a hub id, a .safetensors file, or one of them and :TOKEN. Repeat it."),
    ] = None
    gguf: Annotated[
        str | None,
        typer.Option(help="A .gguf file with the denoiser's weights in 2 to 8 bits, also owner/name:PATH of the hub."),
    ] = None
    config: Annotated[
        str | None,
        typer.Option(help="A hub id or folder with the configurations that a single .safetensors file needs."),
    ] = None
    variant: Annotated[
        str | None, typer.Option(help="Of the weights, such as fp16. Default: the plain ones, if any.")
    ] = None
    revision: Annotated[str | None, typer.Option(help="A commit, tag or branch of the hub. Default: main.")] = None
    factory: Annotated[
        str | None,
        typer.Option(help="FILE.py:FUNCTION: your own function(dtype) that builds the pipe, instead of --pipeline."),
    ] = None
    run_code: Annotated[bool, typer.Option("--run-code", help="Allow the code of --factory to run.")] = False
    weights: Annotated[str, typer.Option(help="pretrained, or random: the full architecture with random weights.")] = (
        "pretrained"
    )

    @property
    def kind(self) -> "WeightsWord":
        """Raises UserError for another word than pretrained and random."""
        return read_weights(self.weights)

    @property
    def on_top(self) -> dict[str, Any]:
        """The arguments of resolve() beside the pipeline's name and the kind of its weights."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in named.items() if name not in ("pipeline", "weights")}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of search(), ladder() and selftest(). Raises UserError."""
        return {"pipeline": self.pipeline, "weights": self.kind, **self.on_top}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """How the pipeline is called, but for prompts and seed. See Workload, where they are described."""

    steps: Annotated[int | None, typer.Option(help="Denoising steps of a call. Default: the pipeline's.")] = None
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT in pixels, such as 512x768. Default: the pipeline's.")
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            help="How strongly the prompt guides; turbo checkpoints are called with 0. Default: the pipeline's."
        ),
    ] = None
    negative_prompt: Annotated[str | None, typer.Option(help="What the pictures should not show.")] = None
    call: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE: a further argument of the pipeline's call, such as max_sequence_length=256, or a "
            "FILE.toml of them. Can be repeated.",
        ),
    ] = None
    strength: Annotated[
        float | None,
        typer.Option(help="How much of the starting picture is drawn anew, up to 1. Default: the pipeline's."),
    ] = None
    batch: Annotated[int | None, typer.Option(help="Pictures a call. Default: 1.")] = None
    frames: Annotated[int | None, typer.Option(help="Of each clip, of a pipeline that makes videos.")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of search(), ladder() and selftest(). Raises UserError."""
        from autotune.workload import read_call, read_size

        at_least_one({"--steps": self.steps, "--batch": self.batch})
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return named | {"size": read_size(self.size) if self.size else None, "call": read_call(self.call or [])}


DeviceName = Annotated[
    str | None, typer.Option(help="cuda, cuda:N, a GPU's UUID or cpu. Default: the first GPU, else the CPU.")
]
DeviceSpec = Annotated[
    str | None, typer.Option(help="A GPU of another machine, such as a100, t4 or 4090, instead of --device.")
]
Vram = Annotated[
    str | None, typer.Option(help="A GPU with this memory, such as 12GB; with a device, at most so much of it.")
]
SameDevice = Annotated[
    str | None,
    typer.Option("--device", help="cuda, cuda:N, a GPU's UUID or cpu. Default: the one most like the measured one."),
]
Baseline = Annotated[
    str,
    typer.Option(
        help="The config to compare with: default (as loaded, or else the plainest that fits), values such as bf16 or "
        "bf16,offload=model, or an exported config."
    ),
]

# The prompts and sizes
Prompts = Annotated[
    Path | None,
    typer.Option(help="A file with one prompt a line, or JSON lines (.jsonl) with seeds. Default: ours."),
]
Workloads = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        help="WIDTHxHEIGHT or WIDTHxHEIGHT@BATCH, instead of --size and --batch. Give several to time every config at "
        "each; pictures are judged at the first.",
    ),
]

StartImage = Annotated[
    list[Path] | None,
    typer.Option(
        "--image",
        help="Your own picture that the calls start from. Repeat it: one for each prompt. Default: ours.",
    ),
]
Mask = Annotated[
    list[Path] | None,
    typer.Option("--mask", help="Your own mask of inpainting: white is drawn anew. Repeat it: one for each prompt."),
]
ControlImage = Annotated[
    list[Path] | None,
    typer.Option("--control-image", help="Your own picture for the ControlNet. Repeat it: one for each prompt."),
]

# The search space and the goal
Space = Annotated[Path | None, typer.Option(help="A space file (TOML): which values of which knobs.")]
Fix = Annotated[list[str] | None, typer.Option(help="KNOB=VALUE: hold a knob at a value. Can be repeated.")]
Exclude = Annotated[list[str] | None, typer.Option(help="KNOB: keep the baseline's value. Can be repeated.")]
MaxQualityDrop = Annotated[
    float | None,
    typer.Option(
        help="Most CLIP points that the pick may lose (default 0.3), without CLIP 100 x (1 - SSIM) (default 10)."
    ),
]
Scorer = Annotated[
    str | None, typer.Option(help="A CLIP model of the hub, or none: only SSIM to the baseline's pictures.")
]
Pick = Annotated[str, typer.Option(help="fastest, smallest, balanced, or the number of a trial.")]

# How it runs
Timeout = Annotated[str, typer.Option(help="The longest that one run may take, such as 90s, 30m or 2h.")]
IsolationWord = Annotated[
    str | None,
    typer.Option(
        "--isolation",
        help="Start trials by fork (off a process that has loaded the libraries) or spawn. Default: as is safe.",
    ),
]
ReuseFlag = Annotated[
    bool,
    typer.Option(
        "--reuse/--no-reuse",
        help="Reuse what earlier trials have compiled and drawn, and draw nothing for dominated trials.",
    ),
]
ThriftFlag = Annotated[bool | None, typer.Option("--thrift/--no-thrift", hidden=True)]  # the former name of --reuse
# Of an exported config whose pipe was built by the user's function, see Model
Factory = Annotated[str | None, typer.Option(help="FILE.py:FUNCTION: the function(dtype) that built the pipe.")]
RunCode = Annotated[bool, typer.Option("--run-code", help="Allow the code of --factory to run.")]
Python = Annotated[
    str | None,
    typer.Option(
        "--python",
        help="The interpreter of another environment with the same autotune, such as /other/venv/bin/python.",
    ),
]

Workers = Annotated[
    str | None,
    typer.Option("--workers", help="Run so many trials at the same time, each on a card of its own; or auto."),
]
Address = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster whose cards run the trials, such as ray://HOST:10001.")
]

# What is printed
JsonLines = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
JsonObject = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def read_fixes(words: list[str]) -> "dict[str, Value]":
    """`["dtype=bf16"]` -> `{"dtype": "bf16"}`. Raises UserError."""
    from autotune.config import read_value

    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UserError(f"--fix takes KNOB=VALUE such as dtype=bf16, not {name + equals + value!r}.")
    names = [name for name, _, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--fix {twice} is given twice: give one of its values.")
    return {name: read_value(value) for name, _, value in pairs}


def by_name(words: list[str], paths: list[Path]) -> list[str]:
    """The command line as it is recorded and exported: each of these paths is replaced by its last part."""
    names = {str(path): absolute(path).name for path in paths}
    return [names.get(word, _after_equals(word, names)) for word in words]


def _after_equals(word: str, names: dict[str, str]) -> str:
    option, equals, path = word.partition("=")
    return f"{option}={names[path]}" if equals and path in names else word


def read_weights(word: str) -> "WeightsWord":
    """Raises UserError for another word than pretrained and random."""
    if word == "pretrained":
        return "pretrained"
    if word == "random":
        return "random"
    raise UserError(f"--weights takes pretrained or random, not {word!r}.")


def one_device(device: str | None, device_spec: str | None) -> "str | Device | None":
    """`--device` or `--device-spec`, which is a device of another machine. Raises UserError for both."""
    from autotune.devices.specs import find_spec

    if device_spec is None:
        return device
    if device is not None:
        raise UserError(f"--device {device} and --device-spec {device_spec} are two devices: give one of them.")
    return find_spec(device_spec)


def one_device_of(
    device: str | None, device_spec: str | None, vram: str | None
) -> "tuple[str | Device | None, int | None]":
    """The device, and the bytes of `--vram`. Where there is no GPU here, one of this memory is made up."""
    from autotune.devices import find_device
    from autotune.devices.specs import card_of
    from autotune.goal import read_bytes

    limit_bytes = read_bytes(vram) if vram else None
    where = one_device(device, device_spec)
    if where is None and limit_bytes is not None and not find_device(None).is_gpu:
        where = card_of(limit_bytes)
    return where, limit_bytes


def read_isolation(word: str | None) -> Isolation | None:
    """Raises UserError for another word than fork and spawn."""
    known: dict[str | None, Isolation | None] = {None: None, **{how: how for how in ISOLATIONS}}
    if word not in known:
        raise UserError(f"--isolation takes fork or spawn, not {word!r}.")
    return known[word]


def at_least_one(numbers: dict[str, int | None]) -> None:
    """Raises UserError where one of these options (name -> number) is below 1."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UserError(f"{name} {number}: give at least 1.")
