"""device, knobs: what is here, and what could be searched on it."""

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.options import ControlNet, DeviceName, LoRA, PipelineName, Task, Weights, read_weights
from autotune.cli.terminal import console
from autotune.errors import UserError


@app.command()
def device() -> None:
    """Print what hardware was found, what it can do, and why we believe so."""
    from autotune.execution.probe import probe_devices
    from autotune.report.terminal.search import device_table

    console().print(device_table(probe_devices()))


@app.command()
def knobs(
    pipeline: PipelineName = "demo",
    task: Task = None,
    controlnet: ControlNet = None,
    lora: LoRA = None,
    device: DeviceName = None,
    device_spec: Annotated[
        str | None, typer.Option(help="A GPU that is not here, such as a100, t4 or 4090: what would be on it.")
    ] = None,
    space: Annotated[Path | None, typer.Option(help="A space file (TOML), as a search takes it.")] = None,
    weights: Weights = "pretrained",
) -> None:
    """Print every knob: what would be searched here, and what not and why."""
    from autotune.devices.specs import find_spec
    from autotune.report.terminal.search import knobs_table
    from autotune.tuning.probe_space import probe_space, probe_space_of

    wishes = {"task": task, "controlnet": controlnet, "lora": lora}
    if device_spec is None:
        console().print(knobs_table(*probe_space(pipeline, read_weights(weights), device, space, **wishes)))
        return
    if device is not None:
        raise UserError(f"--device {device} is here, --device-spec {device_spec} is not: give one of them.")
    console().print(
        knobs_table(*probe_space_of(pipeline, read_weights(weights), find_spec(device_spec), space, **wishes))
    )
