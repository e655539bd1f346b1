"""Parquet files of recordings: a row for each trial, the header as JSON in the metadata.

A file may come from anywhere. Its size is checked before it is unpacked, and every field afterwards.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from autotune.config import Value
from autotune.errors import UserError
from autotune.recordings.recording import SCHEMA_VERSION, Header, Recording, Row

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

HEADER = b"autotune"  # the key of the header in the file's metadata
KNOB = "knob_"  # prefix of a knob's column; its values are JSON, null where the knob is not active
MOST_BYTES = 256 * 2**20  # of the file, and of its unpacked content
MOST_ROWS = 200_000
MOST_VALUES = 20_000_000  # of a column, those in lists counted singly
ENCODINGS = {
    "PLAIN",
    "RLE",
    "BIT_PACKED",
}  # accepted; with a dictionary, a small file can unpack to a huge one

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


def _arrow() -> tuple[ModuleType, ModuleType]:
    """(pyarrow, pyarrow.parquet). Raises UserError if pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("recorded tables need pyarrow, which is not installed: pip install 'pyarrow>=21'.") from None
    return pyarrow, parquet


def check_table_path(path: Path) -> None:
    """Raises UserError if no table could be written to this path. Called before anything is measured."""
    _arrow()
    if path.suffix != ".parquet":
        raise UserError(f"-o {path}: the table must be a .parquet file.")
    if not path.parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {str(path.parent)!r}.")


def write_table(recording: Recording, path: Path) -> None:
    """Write the whole file or none. Raises UserError if it can't be written."""
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
    """The recording in this file. Raises UserError if the file is not a recording, is damaged or is too large."""
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
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{where} can't be read: {reason}.") from None
    parsed = tuple(_row(row, where) for row in rows)
    return Recording(header=header, rows=parsed).check(where)


def _check_size(path: Path, metadata: "FileMetaData", where: str) -> None:
    """Raises UserError if the file is too large, or could unpack to more than it says. Called before unpacking."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    size = max(path.stat().st_size, sum(chunk.total_uncompressed_size for chunk in chunks))
    if size > MOST_BYTES or metadata.num_rows > MOST_ROWS or any(chunk.num_values > MOST_VALUES for chunk in chunks):
        raise UserError(f"{where} can't be used: it is larger than any table that autotune writes.")
    if any(set(chunk.encodings) - ENCODINGS for chunk in chunks):
        raise UserError(f"{where} can't be used: its columns have an encoding that autotune does not write.")


def _header(metadata: Mapping[bytes, bytes], where: str) -> Header:
    if HEADER not in metadata:
        raise UserError(f"{where} has no autotune header: it is not a recording.")
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
    """The decoded text. Raises UserError, calling the text `what`, if it is not JSON or holds NaN or infinity."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (TypeError, ValueError, RecursionError):
        raise UserError(f"{what} can't be used: it is not JSON.") from None


def _no_constant(word: str) -> Any:
    raise ValueError(word)
