"""Command fit: does a pipeline fit on a GPU? Which formats and offload modes can hold its weights."""

import json

from autotune.cli.app import app
from autotune.cli.grouped import grouped
from autotune.cli.options import DeviceName, DeviceSpec, JsonObject, Model, Vram, one_device_of


@app.command()
@grouped
def fit(
    model: Model,
    *,
    device: DeviceName = None,
    device_spec: DeviceSpec = None,
    vram: Vram = None,
    as_json: JsonObject = False,
) -> None:
    """Print which number formats and offload modes can hold the weights, and what is left for activations.

    Nothing is loaded or downloaded but configurations and the headers of the weights' files.
    """
    from autotune.report.terminal.fit import fit_answer, fit_data, fit_notes, fit_table
    from autotune.report.terminal.theme import plain_console, show_heading
    from autotune.tuning.probe_space import probe_target

    where, limit_bytes = one_device_of(device, device_spec, vram)
    target = probe_target(model.pipeline, model.kind, where, quick=True, **model.on_top)
    memory_bytes = min(target.device.memory_bytes, limit_bytes or target.device.memory_bytes)
    if as_json:
        print(json.dumps(fit_data(target, memory_bytes)))
        return
    console = plain_console()
    about = f"{target.pipeline.name} ({target.pipeline.known.class_name}) on {target.device.name}"
    show_heading(console, "fit", about)
    console.print(fit_answer(target, memory_bytes), soft_wrap=True)
    console.print("", fit_table(target, memory_bytes), "", *fit_notes(target), sep="\n")
