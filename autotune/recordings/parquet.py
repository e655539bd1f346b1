"""A recording as a file: Parquet, a row a trial, with everything that the rows are about as JSON in its metadata.

A table may come from anywhere: it is bounded before it is unpacked, and checked field by field afterwards.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.config import Value
from autotune.errors import UserError
from autotune.recordings.recording import SCHEMA_VERSION, Header, Recording, Row

HEADER = b"autotune"  # the key in the file's metadata
KNOB = "knob_"  # before the name of a knob's column; its values are JSON, null where the knob doesn't act
MOST_BYTES = 256 * 2**20  # of the file, and of what is packed in it
MOST_ROWS = 200_000
MOST_VALUES = 20_000_000  # of a column, those in lists counted one by one
UNPACKED = {"PLAIN", "RLE", "BIT_PACKED"}  # encodings that can't make much out of little: no dictionaries

_TYPES = {
    "trial": "int64",
    "origin": "string",
    "outcome": "string",
    "reason": "string",
    "knob": "string",
    "drift": "float64",
    "latency_s": "float64",
    "latency_samples_s": "list",
    "also_latency_samples_s": "lists",
    "peak_memory_bytes": "int64",
    "load_peak_memory_bytes": "int64",
    "run_peak_memory_bytes": "int64",
    "quality_loss": "float64",
    "clip_scores": "list",
    "ssim": "list",
    "psnr_db": "list",
    "lpips": "list",
    "seconds": "float64",
    "load_s": "float64",
    "apply_s": "float64",
    "first_call_s": "float64",
    "also_first_call_s": "list",
    "compile_s": "float64",
    "warmup_s": "list",
    "score_s": "float64",
    "text_encoding_s": "float64",
    "denoising_step_s": "float64",
    "vae_decode_s": "float64",
    "energy_per_picture_j": "float64",
}


def _arrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet). Raises UserError where it is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            "tables of recorded spaces need pyarrow, which is not here: pip install 'diffusers-autotune[research]'."
        ) from None
    return pyarrow, parquet


def check_table_path(path: Path) -> None:
    """Raises UserError where no table could be written, before anything is measured for it."""
    _arrow()
    if path.suffix != ".parquet":
        raise UserError(f"-o {path}: the table is a .parquet.")
    if not path.parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {str(path.parent)!r}.")


def write_table(recording: Recording, path: Path) -> None:
    """Whole or not at all. Raises UserError where that can't be."""
    pyarrow, parquet = _arrow()
    knobs = sorted({name for row in recording.rows for name in row.values})
    kinds = {"list": pyarrow.list_(pyarrow.float64()), "lists": pyarrow.list_(pyarrow.list_(pyarrow.float64()))}
    fields = [(KNOB + name, pyarrow.string()) for name in knobs]
    fields += [(name, kinds.get(kind) or pyarrow.type_for_alias(kind)) for name, kind in _TYPES.items()]
    header = json.dumps(recording.header.to_json(), allow_nan=False)
    schema = pyarrow.schema(fields, metadata={HEADER: header.encode()})
    table = pyarrow.Table.from_pylist([_flat(row, knobs) for row in recording.rows], schema)
    temporary = path.with_name(f".{path.name}.part")
    try:
        parquet.write_table(table, temporary, use_dictionary=False, compression="zstd")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be written: {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _flat(row: Row, knobs: list[str]) -> dict[str, Any]:
    data = row.to_json()
    values = data.pop("values")
    return data | {KNOB + name: json.dumps(values[name]) if name in values else None for name in knobs}


def read_table(path: Path) -> Recording:
    """The recording in this file. Raises UserError, in one sentence, where it is none, is broken or is too large."""
    pyarrow, parquet = _arrow()
    where = f"the table {str(path)!r}"
    try:
        if not path.is_file():
            raise UserError(f"there is no table at {str(path)!r}.")
        with parquet.ParquetFile(path, memory_map=False) as file:
            _check_size(path, file.metadata, where)
            header = _header(file.schema_arrow.metadata or {}, where)
            rows = [row for batch in file.iter_batches(batch_size=256) for row in batch.to_pylist()]
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{where} can't be read: {said}.") from None
    parsed = tuple(_row(row, where) for row in rows)
    return Recording(header=header, rows=parsed).check(where)


def _check_size(path: Path, metadata: Any, where: str) -> None:
    """Before anything is unpacked. Raises UserError."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    size = max(path.stat().st_size, sum(chunk.total_uncompressed_size for chunk in chunks))
    if size > MOST_BYTES or metadata.num_rows > MOST_ROWS or any(chunk.num_values > MOST_VALUES for chunk in chunks):
        raise UserError(f"{where} can't be used: it is larger than any that autotune writes.")
    if any(set(chunk.encodings) - UNPACKED for chunk in chunks):
        raise UserError(f"{where} can't be used: its columns are encoded otherwise than autotune does.")


def _header(metadata: Mapping[bytes, bytes], where: str) -> Header:
    if HEADER not in metadata:
        raise UserError(f"{where} has no header of autotune's: it is no recording.")
    data = _json(metadata[HEADER].decode("utf-8"), f"the header of {where}")
    schema = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise UserError(f"{where} was written by a newer autotune (schema {schema}); upgrade autotune.")
    return Header.parse(data, f"the header of {where}")


def _row(data: Mapping[str, Any], where: str) -> Row:
    values: dict[str, Value] = {
        name.removeprefix(KNOB): _json(text, f"{name} in {where}")
        for name, text in data.items()
        if name.startswith(KNOB) and text is not None
    }
    given = {name: value for name, value in data.items() if not name.startswith(KNOB) and value is not None}
    return Row.parse({**given, "values": values}, where)


def _json(text: Any, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (TypeError, ValueError, RecursionError):
        raise UserError(f"{what} can't be used: it is not JSON.") from None


def _no_constant(word: str) -> Any:
    raise ValueError(word)
