"""gguf_file: the denoiser from a GGUF file, whose weights stay as the file has packed them, in 2 to 8 bits.

diffusers turns the weights of a linear layer back for each product (GGUFLinear), so that any device can, and the
denoiser never has to fit in 16 bits. The package gguf reads the file.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import locate, parts
from autotune.pipelines.classes import component_class, read_index

if TYPE_CHECKING:
    import torch


def load(pipeline: Pipeline, folder: Path, dtype: "torch.dtype", *, local_files_only: bool) -> dict[str, Any]:
    """The pipe's denoiser by its name, in host memory. It computes in `dtype`. Raises UserError.

    folder  with the configurations of the pipeline
    """
    from diffusers import GGUFQuantizationConfig

    name, cls = denoiser_of(folder, str(pipeline.gguf))
    file = file_of(pipeline, local_files_only=local_files_only)
    tensors_of(file)  # one sentence where it can't be read
    how = {"config": str(folder), "subfolder": name, "dtype": dtype, "local_files_only": True}
    try:
        model = cls.from_single_file(str(file), quantization_config=GGUFQuantizationConfig(compute_dtype=dtype), **how)
    except MemoryError:
        raise
    except Exception as error:  # of the library that maps the names in the file to those of the class
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"--gguf {pipeline.gguf}: it does not fit {cls.__name__} of {pipeline.name}: {said}") from error
    missing = [key for key, weight in model.named_parameters() if weight.is_meta]
    if missing:
        raise UserError(
            f"--gguf {pipeline.gguf}: it lacks {len(missing)} weights of {cls.__name__} of {pipeline.name}, such as "
            f"{missing[0]}."
        )
    return {name: model}


def file_of(pipeline: Pipeline, *, local_files_only: bool) -> Path:
    """The file on this disk. It is downloaded if needed. Raises UserError."""
    revision = locate.hub_revision(pipeline.part_revisions.get("gguf"))
    return locate.part_folder(str(pipeline.gguf), revision=revision, local_files_only=local_files_only)


def denoiser_of(folder: Path, source: str) -> tuple[str, Any]:
    """(name, class) of the denoiser that the file stands for. Raises UserError where no single file can."""
    index = read_index(folder)
    classes = {name: component_class(*index[name]) for name in parts.DENOISERS if None not in index.get(name, [None])}
    if not classes:
        raise UserError(f"--gguf {source}: {index['_class_name']} has neither a transformer nor a UNet.")
    name, cls = next(iter(classes.items()))
    others = [other for other, spec in index.items() if other != name and spec == index[name]]
    if others:
        raise UserError(
            f"--gguf {source}: {index['_class_name']} has several denoisers ({', '.join([name, *others])}): build the "
            "pipe in a function of your own (--factory, see examples/flux_gguf.py)."
        )
    if not hasattr(cls, "from_single_file"):
        raise UserError(f"--gguf {source}: diffusers loads no {cls.__name__} from a single file.")
    return name, cls


def formats_of(file: Path) -> dict[str, tuple[int, int]]:
    """Number format, as GGUF calls it ("Q4_K") -> how many weights have it, and their bytes; the most bytes first.

    Raises UserError for a file that can't be read.
    """
    weights, sizes = Counter[str](), Counter[str]()
    for tensor in tensors_of(file):
        weights[tensor.tensor_type.name] += int(tensor.n_elements)
        sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    return {name: (weights[name], size) for name, size in sizes.most_common()}


def tensors_of(file: Path) -> list[Any]:
    """The tensors in the file: gguf's ReaderTensor. Raises UserError for a file that can't be read."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UserError("--gguf needs the package gguf: pip install gguf") from None
    try:
        tensors: list[Any] = list(GGUFReader(file).tensors)
    except (OSError, ValueError, IndexError, KeyError, OverflowError) as error:  # cut off, or of another kind
        raise UserError(f"--gguf {str(file)!r} can't be read: {error}") from None
    if not tensors:
        raise UserError(f"--gguf {str(file)!r} has no tensors.")
    return tensors


def one_packed_weight(file: Path) -> Any:
    """A weight of the file as diffusers holds it, the smallest; None: the file has packed none."""
    import torch
    from diffusers.quantizers.gguf.utils import GGUFParameter

    packed = [tensor for tensor in tensors_of(file) if tensor.data.dtype == "uint8"]
    if not packed:
        return None
    least = min(packed, key=lambda tensor: int(tensor.n_bytes))
    return GGUFParameter(torch.from_numpy(least.data.copy()), quant_type=least.tensor_type)
