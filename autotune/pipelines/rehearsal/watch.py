"""Watch: what each model of a rehearsed pipe is given and gives, and who reads it."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from autotune.pipelines import parts
from autotune.pipelines.adapters.encoding import words_of

Until = Literal["given", "denoised", "decoding"]


@dataclass
class Seen:
    """What a rehearsed call showed. `fault` says why it ended early; what was seen until then is kept.

    attention      model -> (head size, masked?, inside of an attention processor?) of its calls of SDPA
    rows           linear layer of the denoiser -> the fewest rows that it was given in a call
    used_directly  linear layers of the denoiser whose weights were read without a call of the layer
    kept           (model, next, by the scheduler?): the model's output was read after `next` was called
    breaks         model -> what its forward does that no whole graph can hold, as "reads a value (Tensor.tolist)"
    given          the shapes of what the denoiser was given, in each of its calls
    timesteps      the arguments of each call of the scheduler's set_timesteps
    vae_encodes    was the VAE's encoder called?
    decoded_in     the number formats of the VAE's weights while it decoded
    encodes        of each call of a text encoder: was it within the pipe's encode_prompt, which was given words alone?
    """

    attention: dict[str, set[tuple[int, bool, bool]]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    used_directly: set[str] = field(default_factory=set)
    kept: set[tuple[str, str, bool]] = field(default_factory=set)
    breaks: dict[str, str] = field(default_factory=dict)
    given: list[list[tuple[int, ...]]] = field(default_factory=list)
    timesteps: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    vae_encodes: bool = False
    decoded_in: set[torch.dtype] = field(default_factory=set)
    encodes: set[bool] = field(default_factory=set)
    fault: str | None = None


class Enough(Exception):
    """No more is asked of the call."""


class Stage:
    """Who is on: the models and layers that are being called, and whose outputs these tensors are."""

    def __init__(self, seen: Seen, until: Until, memory: dict[Any, Any]) -> None:
        self.seen = seen
        self.memory = memory
        self.until = until
        self.on: list[tuple[str, str]] = []  # (model, layer)
        self.by_scheduler = False
        self.processing = 0  # the depth of attention processors
        self.calls: list[str] = []  # the models in the order of their calls
        self.outputs: dict[int, tuple[Any, int]] = {}  # storage -> (itself, the call whose output it is)
        self.weights: dict[int, str] = {}  # storage -> the linear layer of the denoiser
        self.given_words = False  # is the pipe's encode_prompt on, and was it given words alone?

    def used(self, tensors: Iterable[torch.Tensor]) -> None:
        """An operation reads these tensors."""
        for tensor in tensors:
            place = storage(tensor)
            layer = self.weights.get(place)
            if layer is not None and self.on and self.on[-1][1] != layer:
                self.seen.used_directly.add(layer)
            if place in self.outputs:
                self._read_output(self.outputs[place][1])

    def _read_output(self, number: int) -> None:
        # What the next model reads was handed to it, and that is not later.
        later = self.calls[number + 1 : len(self.calls) - bool(self.on)]
        self.seen.kept |= {(self.calls[number], name, self.by_scheduler) for name in later}

    def attends(self, query: torch.Tensor, masked: bool) -> None:
        if self.on:
            kinds = self.seen.attention.setdefault(self.on[0][0], set())
            kinds.add((int(query.shape[-1]), masked, self.processing > 0))

    def breaks(self, how: str) -> None:
        if self.on:
            self.seen.breaks.setdefault(self.on[0][0], how)

    def watch(self, pipe: Any) -> None:
        """Watch the models of the stand-in."""
        denoiser = parts.denoiser_name(pipe)
        if hasattr(pipe, "encode_prompt"):
            vars(pipe)["encode_prompt"] = self._encoding(pipe.encode_prompt)
        for encoder in parts.text_encoders(pipe).values():
            encoder.register_forward_pre_hook(lambda *_: self.seen.encodes.add(self.given_words))
        for name, model in {**parts.step_models(pipe), **parts.text_encoders(pipe)}.items():
            self._watch_model(name, model)
            self._watch_processors(model)
            if name == denoiser:
                self._watch_layers(name, model)
        vae = parts.vae(pipe)
        if vae is not None and hasattr(vae, "decode"):
            vae.decode = self._decoding(vae, vae.decode)
        if vae is not None and hasattr(vae, "encode"):
            vae.encode = self._vae_encoding(vae.encode)
        scheduler: Any = getattr(pipe, "scheduler", None)
        if hasattr(scheduler, "set_timesteps"):
            scheduler.set_timesteps = parts.rebound(scheduler, "set_timesteps", self._setting_timesteps)
        if hasattr(scheduler, "step"):
            scheduler.step = parts.rebound(scheduler, "step", self._stepping)

    def _encoding(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(encode)
        def encoding(*args: Any, **kwargs: Any) -> Any:
            try:
                words_of([*args, kwargs])
                self.given_words = True
            except TypeError:
                self.given_words = False
            try:
                return encode(*args, **kwargs)
            finally:
                self.given_words = False

        return encoding

    def _watch_model(self, name: str, model: torch.nn.Module) -> None:
        def before(_: Any, args: Any, kwargs: Any) -> None:
            self.calls.append(name)
            self.on.append((name, ""))

        def after(_: Any, args: Any, kwargs: Any, output: Any) -> None:
            self.on.pop()
            for tensor in _tensors(output):
                self.outputs[storage(tensor)] = (tensor.untyped_storage(), len(self.calls) - 1)

        model.register_forward_pre_hook(before, with_kwargs=True)
        model.register_forward_hook(after, with_kwargs=True)
        model.forward = self._remembering(name, model.forward)

    def _remembering(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def remembered(*args: Any, **kwargs: Any) -> Any:
            self.used(_tensors([*args, *kwargs.values()]))  # also where nothing is computed, as it was before
            with torch._C.DisableTorchFunction():
                key = (name, _kind(args), _kind(kwargs))
            if key not in self.memory:
                self.memory[key] = forward(*args, **kwargs)
            return anew(self.memory[key])

        return remembered

    def _watch_processors(self, model: torch.nn.Module) -> None:
        def processes(change: int, *_: Any) -> None:
            self.processing += change

        for module in model.modules():
            if getattr(module, "processor", None) is not None:
                module.register_forward_pre_hook(functools.partial(processes, 1))
                module.register_forward_hook(functools.partial(processes, -1))

    def _watch_layers(self, name: str, denoiser: torch.nn.Module) -> None:
        def given(_: Any, args: Any, kwargs: Any) -> None:
            self.seen.given.append([tuple(t.shape) for t in _tensors([*args, *kwargs.values()])])
            if self.until == "given":
                raise Enough

        def before(layer: str, module: Any, args: Any, kwargs: Any) -> None:
            self.on.append((name, layer))
            tensors = list(_tensors([*args, *kwargs.values()]))
            if tensors:
                rows = tensors[0].numel() // max(1, module.in_features)
                self.seen.rows[layer] = min(rows, self.seen.rows.get(layer, rows))

        def after(*_: Any) -> None:
            self.on.pop()

        def enough(*_: Any) -> None:
            if self.until == "denoised":
                raise Enough

        denoiser.register_forward_pre_hook(given, with_kwargs=True)
        denoiser.register_forward_hook(enough)
        for layer, module in denoiser.named_modules():
            if isinstance(module, torch.nn.Linear):
                self.weights[storage(module.weight)] = layer
                module.register_forward_pre_hook(functools.partial(before, layer), with_kwargs=True)
                module.register_forward_hook(after)

    def _decoding(self, vae: Any, decode: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(decode)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.seen.decoded_in.add(next(vae.parameters()).dtype)
            raise Enough

        return watched

    def _vae_encoding(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(encode)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.seen.vae_encodes = True
            return encode(*args, **kwargs)

        return watched

    def _setting_timesteps(self, set_timesteps: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(set_timesteps)
        def watched(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.timesteps.append((args, kwargs))
            return set_timesteps(scheduler, *args, **kwargs)

        return watched

    def _stepping(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.by_scheduler = True
            try:
                return step(*args, **kwargs)
            finally:
                self.by_scheduler = False

        return watched


def _kind(value: Any) -> Any:
    """What of the arguments decides on the shapes that a model works with."""
    if isinstance(value, torch.Tensor):
        # Masks, not timesteps: those are no more than a number for each picture.
        known = not value.is_meta and not value.is_floating_point() and value.dim() > 1 and value.numel() < 10_000
        return (tuple(value.shape), value.dtype, tuple(value.flatten().tolist()) if known else None)
    if isinstance(value, dict):
        return tuple((name, _kind(part)) for name, part in value.items())
    return tuple(map(_kind, value)) if isinstance(value, list | tuple) else repr(value)


def anew(value: Any) -> Any:
    """An output of the same kind whose tensors are new ones."""
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value)
    if isinstance(value, dict):
        made = {name: anew(part) for name, part in value.items()}
        return made if type(value) is dict else type(value)(**made)
    return type(value)(map(anew, value)) if type(value) in (list, tuple) else value


def storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a value, which may be lists, dicts, or the outputs of diffusers and transformers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif hasattr(value, "__dataclass_fields__"):
        yield from _tensors([getattr(value, name) for name in value.__dataclass_fields__])
