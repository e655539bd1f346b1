"""Encoding: what a pipe's encode_prompt gave for known prompts, and how its text encoders are dropped then."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError, shown
from autotune.pipelines import call, inputs, parts
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PLACES = ("device", "dtype")  # their classes in torch: where and how a tensor is made says nothing of the prompt


class Encoded:
    """Stands in for `encode_prompt` of a pipe: gives what that gave for the same arguments, while it was recording."""

    def __init__(self, pipe: "DiffusionPipeline") -> None:
        self._encode: Any = pipe.encode_prompt
        self._signature = inspect.signature(self._encode)
        self._given: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self._given)

    def record(self, *args: Any, **kwargs: Any) -> Any:
        """Encode, and keep what came out. Raises TypeError for arguments that are no words and numbers."""
        key = self._key(args, kwargs)
        if key not in self._given:
            self._given[key] = self._encode(*args, **kwargs)
        return _anew(self._given[key])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self._key(args, kwargs)
        if key not in self._given:
            prompt = self._signature.bind(*args, **kwargs).arguments.get("prompt")
            raise UserError(
                f"this pipe has no text encoders any more (encoding=once), and {shown(prompt)} is not among the "
                f"{len(self)} calls that it has encoded: draw the workload's prompts, alone or in its batches, with "
                "the workload's arguments, or load the config with encoding=each_call."
            )
        return _anew(self._given[key])

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple((name, _listed(name, value)) for name, value in sorted(bound.arguments.items()))


def _listed(name: str, value: Any) -> Any:
    """A text is the same as a list of it alone."""
    return (value,) if isinstance(value, str) and "prompt" in name else words_of(value)


def words_of(value: Any) -> Any:
    """The words and numbers in a value, as a key. Raises TypeError where there is anything else, such as a tensor."""
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    if isinstance(value, list | tuple):
        return tuple(map(words_of, value))
    if isinstance(value, dict):
        return tuple((name, words_of(value[name])) for name in sorted(value))
    if type(value).__name__ in PLACES:
        return None
    raise TypeError(f"a {type(value).__name__} is no word and no number")


def encode_all(pipe: "DiffusionPipeline", workload: Workload) -> Encoded:
    """Begin a call for each prompt and each batch of the workload, until its denoiser or VAE is called.

    Only the text encoders need to be on the device. Afterwards the pipe's `encode_prompt` gives what was found, and
    encodes nothing. Raises TypeError where encode_prompt is given a tensor or a picture.
    """
    encoded = Encoded(pipe)
    vars(pipe)["encode_prompt"] = encoded.record
    with _stopped_after_encoding(pipe):
        for sized, prompts, seeds in _calls(workload):
            arguments = call.workload_values(pipe, sized) | inputs.call_arguments(pipe, sized, prompts, seeds)
            if isinstance(arguments.get("negative_prompt"), str) and isinstance(arguments.get("prompt"), list):
                arguments["negative_prompt"] = [arguments["negative_prompt"]] * len(arguments["prompt"])
            with suppress(_Enough):
                pipe(**arguments)
    vars(pipe)["encode_prompt"] = encoded
    return encoded


def _calls(workload: Workload) -> Iterator[tuple[Workload, list[str], list[int]]]:
    """Each batch of the workload at each size, and each prompt alone, without repeats."""
    seen: set[tuple[str, ...]] = set()
    for shape in workload.shapes:
        for sized in (workload.at(shape), workload.at(shape.model_copy(update={"batch": 1}))):
            for prompts, seeds in sized.calls():
                if tuple(prompts) not in seen:
                    seen.add(tuple(prompts))
                    yield sized, prompts, seeds


class _Enough(Exception):
    """The prompt is encoded."""


@contextmanager
def _stopped_after_encoding(pipe: "DiffusionPipeline") -> Iterator[None]:
    """Inside the block, a call ends where it would call a denoiser or the VAE, compiled or not."""

    def stop(*_: Any, **__: Any) -> None:
        raise _Enough

    models = [model for model in (*parts.step_models(pipe).values(), parts.vae(pipe)) if model is not None]
    replaced = [(model, "_compiled_call_impl") for model in models]
    replaced += [(model, name) for model in models for name in ("encode", "decode") if hasattr(model, name)]
    before = [(model, name, vars(model).get(name), name in vars(model)) for model, name in replaced]
    for model, name in replaced:
        vars(model)[name] = stop
    try:
        yield
    finally:
        for model, name, value, had in before:
            vars(model).pop(name)
            if had:
                vars(model)[name] = value


def drop(models: Iterable[Any]) -> int:
    """Give up the weights of the models, which keep their configurations; the bytes that they took."""
    import torch

    shared: dict[int, Any] = {}  # id -> the tensor, once where modules share it
    for module in (module for model in models for module in model.modules()):
        for name, tensor in module._parameters.items():
            if tensor is not None:
                shared[id(tensor)] = tensor
                empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)
    return sum(map(bytes_of, shared.values()))


def bytes_of(tensor: Any) -> int:
    """The bytes of a tensor; of a quantized one, those of the tensors that it is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(bytes_of(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return int(tensor.numel() * tensor.element_size())


def _anew(value: Any) -> Any:
    """The same with tensors of its own: a call may change what it is given."""
    if hasattr(value, "clone"):
        return value.clone()
    if isinstance(value, dict):
        return type(value)({name: _anew(part) for name, part in value.items()})
    return type(value)(map(_anew, value)) if isinstance(value, list | tuple) else value
