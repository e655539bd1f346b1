"""Fit: what the weights take in each number format and with each offload, and what they leave of a device's memory."""

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from autotune.config import Config, Value
from autotune.knobs import all_knobs, complete, find_knob, footprint
from autotune.report import words
from autotune.study.space import SearchSpace
from autotune.target import Target
from autotune.tuning.baseline import first_fitting, sixteen_bits
from autotune.tuning.baseline import words as config_words


@dataclass(frozen=True)
class Row:
    """One way to store the weights.

    values  "dtype", and at most one other knob
    needed  offload -> bytes of the weights that must be on the device at the same time; absent: not possible together
    total   bytes of all weights, which an offload keeps in host memory
    """

    values: dict[str, Value]
    needed: dict[str, int]
    total_bytes: int


def fit_rows(target: Target) -> tuple[list[Row], dict[str, str]]:
    """The ways to store the weights that are possible here; and KNOB=VALUE -> why it is not, for the others."""
    rows, faults = list[Row](), dict[str, str]()
    for name, value in _formats():
        # With the rest in 16 bits, or where that does not go together, in float32.
        dtypes = [value] if name == "dtype" else dict.fromkeys([sixteen_bits(target) or "fp32", "fp32"])
        tried = [_row({"dtype": dtype, name: value}, target) for dtype in dtypes]
        found = next((row for row in tried if isinstance(row, Row)), tried[0])
        if isinstance(found, Row):
            rows.append(found)
        else:
            faults[f"{name}={value}"] = found
    return rows, faults


def _row(values: dict[str, Value], target: Target) -> Row | str:
    """The row of these values; or why there is none."""
    space = SearchSpace(target, {})
    name, value = list(values.items())[-1]
    fault = find_knob(name).why_not(value, target)
    if fault is not None:
        return fault
    configs = {how: complete(values | {"offload": how}) for how in _offloads(target)}
    objections = {how: space.objection(config) for how, config in configs.items()}
    held = {how: footprint(configs[how], target) for how, objection in objections.items() if objection is None}
    if not held:
        return next(objection for objection in objections.values() if objection)
    return Row(values, {how: one.resident_bytes for how, one in held.items()}, next(iter(held.values())).weights_bytes)


def _formats() -> list[tuple[str, Value]]:
    """The number formats, then each value of each other knob that changes what the weights take."""
    others = [k for k in all_knobs().values() if k.weighs is not None and k.name not in ("dtype", "offload")]
    formats: list[tuple[str, Value]] = [("dtype", value) for value in find_knob("dtype").values]
    return formats + [(knob.name, value) for knob in others for value in knob.values[1:]]


def _offloads(target: Target) -> list[str]:
    offload = find_knob("offload")
    return [str(value) for value in offload.values if offload.why_not(value, target) is None]


def fit_table(target: Target, memory_bytes: int) -> RenderableType:
    """One row a way to store the weights, one column an offload: what they take, and what they leave."""
    rows, faults = fit_rows(target)
    title = f"GB of weights on the device / left of {_gigabytes(memory_bytes)} for all else"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("stored as", overflow="fold")
    for how in _offloads(target):
        table.add_column("all there" if how == "none" else f"offload=\n{how}", justify="right", no_wrap=True)
    for row in rows:
        cells = [_cell(row.needed.get(how), memory_bytes) for how in _offloads(target)]
        table.add_row(_stored_as(row, target).replace("=", "=\n"), *cells)
    alike = {why: [name for name in faults if faults[name] == why] for why in faults.values()}
    return Group(table, *(f"no figures for {', '.join(names)}: {why}" for why, names in alike.items()))


def _stored_as(row: Row, target: Target) -> str:
    """ "bf16", "int8_weight_only", or with the rest in another format than usual: "int8_weight_only, fp32".

    Where a knob before has the same value, the knob is named: "quantize_text_encoder=int8_weight_only".
    """
    (knob, value), dtype = list(row.values.items())[-1], row.values["dtype"]
    first = next(name for name, other in _formats() if other == value)
    label = str(value) if knob == first else f"{knob}={value}"
    return label if len(row.values) == 1 or dtype == (sixteen_bits(target) or "fp32") else f"{label}, {dtype}"


def _cell(needed: int | None, memory_bytes: int) -> str:
    if needed is None:
        return "-"
    left = memory_bytes - needed
    return f"{_gigabytes(needed)} / {_gigabytes(left) if left >= 0 else 'no'}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}" if size >= 10**8 else f"{size / 1e9:.3f}"


def fit_answer(target: Target, memory_bytes: int) -> str:
    """Does it fit, and how: in one sentence."""
    config, name = first_fitting(target, memory_bytes), target.pipeline.name
    if config is None:
        return f"No: in no format and with no offload do the weights of {name} fit in {words.memory(memory_bytes)}."
    needed = footprint(config, target).resident_bytes
    figures = f"take {words.memory(needed)} and leave {words.memory(memory_bytes - needed)} for activations"
    return f"The plainest config whose weights fit is {config_words(config)}: they {figures}."


def fit_notes(target: Target) -> list[str]:
    """The weights of each component, and how the estimate is made."""
    parts = []
    for part in target.pipeline.known.components:
        stored = f", stored as {part.stored_format}" if part.stored_format else ""
        parts.append(f"{part.name} {part.weights / 1e6:,.1f} million{stored}")
    known = any(part.stored for part in target.pipeline.known.components)
    source = "said by the headers of its files" if known else "not known: its files were not read"
    dtype = sixteen_bits(target)
    return [
        f"Weights: {'; '.join(parts)}.",
        f"They are counted on the model's classes, and none are loaded; how they are stored is {source}. Where the "
        f"denoiser is stored in 8 or 4 bits, the rest is in {dtype or 'fp32'}, or as the row says.",
        "What is left must hold the activations, which grow with the pictures, and some hundred MB of CUDA context. "
        "With an offload, host memory must hold the weights. These columns were not checked on a GPU.",
    ]


def fit_data(target: Target, memory_bytes: int) -> dict[str, Any]:
    """The same as JSON."""
    rows, faults = fit_rows(target)
    config = first_fitting(target, memory_bytes)
    return {
        "pipeline": target.pipeline.name,
        "device": target.device.name,
        "memory_bytes": memory_bytes,
        "baseline": None if config is None else dict(_changed(config)),
        "formats": [
            {
                "values": row.values,
                "weights_bytes": row.total_bytes,
                "on_device_bytes": row.needed,
                "left_bytes": {how: memory_bytes - needed for how, needed in row.needed.items()},
            }
            for row in rows
        ],
        "not_possible": faults,
        "components": [part.to_json() for part in target.pipeline.known.components],
    }


def _changed(config: Config) -> dict[str, Value]:
    return {name: value for name, value in config.items() if value != find_knob(name).default}
