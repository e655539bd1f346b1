"""Rehearse: call a copy of a pipe whose weights are empty, and note what each model is given and gives.

The weights have shapes but no values (torch's "meta" device), so that a call of a model of any size takes seconds and
no memory. What does not depend on weights, as tokens, masks, noise and timesteps, is computed for real.
"""

import copy
import functools
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from autotune.errors import UserError
from autotune.pipelines import call, inputs, parts
from autotune.pipelines.adapters.encoding import words_of
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Until = Literal["given", "denoised", "decoding"]
READS = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "numpy")  # a value is needed


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


class _Enough(Exception):
    """No more is asked of the call."""


def rehearse(
    pipe: "DiffusionPipeline",
    workload: Workload,
    *,
    dtype: torch.dtype | None = None,
    until: Until = "decoding",
    memory: dict[Any, Any] | None = None,
    change: Callable[[Any], Any] | None = None,
) -> Seen:
    """Make the first call of the workload with a copy of the pipe that has empty weights. The pipe stays as it is.

    Raises UserError where the call needs a package that is not installed.

    dtype   the format of the weights; None: their own
    until   when the call is ended: when the denoiser is called first, after that call, or when the VAE is called
    change  what is done to the copy before it is called, to see whether it still works
    memory  what models and operations gave, to be handed on to the next call: none runs again for the same shapes
    """
    seen = Seen()
    stage = _Stage(seen, until, {} if memory is None else memory)
    prompts, seeds = next(workload.calls())
    try:
        stand_in = _stand_in(pipe, dtype)
        if change is not None:
            change(stand_in)
        arguments = inputs.call_arguments(stand_in, workload, prompts, seeds) | call.workload_values(pipe, workload)
        if "strength" in call.parameters(pipe):
            arguments |= {"strength": 1.0}  # otherwise some of the steps are left out
        stage.watch(stand_in)
        with _quiet(), _RealWhereKnown(stage), _Functions(stage), torch.no_grad():
            stand_in(**arguments, output_type="pt")
    except _Enough:
        pass
    except Exception as error:  # any pipeline of any library: the reason is kept, and what was seen until then
        if package := missing_package(error):
            raise UserError(
                f"the call of {type(pipe).__name__} needs the package {package}, which is not installed: "
                f"pip install {package}."
            ) from None
        seen.fault = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return seen


def missing_package(error: Exception) -> str | None:
    """The package for lack of which a call failed; None: it failed for another reason.

    diffusers imports optional packages only where they are installed, so that a call without one is a NameError.
    """
    from diffusers.utils import import_utils

    name = error.name if isinstance(error, NameError) else None
    asked: Callable[[], bool] = getattr(import_utils, f"is_{name}_available", lambda: True)
    return None if asked() else name


class _Autocast(torch.autocast):  # type: ignore[misc]
    """torch.autocast, which refuses the device type "meta". Some pipelines (Mochi) ask for that of their weights."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "meta" else device_type, *args, **kwargs)


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' warnings and refusals of formats and devices do not concern a copy without weights.

    A mask without values selects all.
    """
    from torch.fx.experimental import _config as meta

    loggers = [logging.getLogger(library) for library in ("diffusers", "transformers")]
    before, before_autocast = [logger.level for logger in loggers], torch.autocast
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), meta.patch(meta_nonzero_assume_all_nonzero=True):
            warnings.simplefilter("ignore")
            torch.autocast = _Autocast
            yield
    finally:
        torch.autocast = before_autocast
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _stand_in(pipe: "DiffusionPipeline", dtype: torch.dtype | None, done: dict[int, Any] | None = None) -> Any:
    """A copy of the pipe with empty models and a scheduler of its own.

    Combined pipes (Kandinsky 2.2) call pipes that they hold, of the same parts: these are replaced by stand-ins, too.

    done  id of an original -> what stands in for it
    """
    from diffusers import DiffusionPipeline

    stand_in, done = copy.copy(pipe), {} if done is None else done
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            vars(stand_in)[name] = _emptied(part, dtype, done)
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is not None:
        vars(stand_in)["scheduler"] = done.setdefault(id(scheduler), copy.deepcopy(scheduler))
    for name, part in list(vars(pipe).items()):
        if isinstance(part, DiffusionPipeline):
            vars(stand_in)[name] = _stand_in(part, dtype, done)
    vars(stand_in)["_progress_bar_config"] = {"disable": True}
    if getattr(stand_in, "safety_checker", None) is not None:
        vars(stand_in)["safety_checker"] = None
    return stand_in


def _emptied(
    module: torch.nn.Module, dtype: torch.dtype | None, done: dict[int, torch.nn.Module] | None = None
) -> torch.nn.Module:
    """A copy of the module with empty weights. Tables of integers, as positions, keep their values.

    What is neither a weight nor a module is shared with the original: deep copies of large models take seconds.
    """
    done = {} if done is None else done
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, torch.nn.Linear) and not module.weight.is_floating_point():
        done[id(module)] = _plain(module, dtype)
        return done[id(module)]
    made = done[id(module)] = copy.copy(module)

    def empty(tensor: torch.Tensor) -> torch.Tensor:
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=kind, device="meta")

    of = vars(module)
    own: dict[str, dict[str, Any]] = {
        name: {} for name, value in of.items() if name.endswith("_hooks") and isinstance(value, dict)
    }
    own |= {"_forward_hooks_with_kwargs": {}, "_forward_pre_hooks_with_kwargs": {}}
    own["_parameters"] = {
        name: None if p is None else torch.nn.Parameter(empty(p), requires_grad=False)
        for name, p in of["_parameters"].items()
    }
    own["_buffers"] = {
        name: b if b is None or not b.is_floating_point() else empty(b) for name, b in of["_buffers"].items()
    }
    own["_modules"] = {name: m and _emptied(m, dtype, done) for name, m in of["_modules"].items()}
    vars(made).update({name: OrderedDict(value) for name, value in own.items()})
    return made


def _plain(packed: torch.nn.Linear, dtype: torch.dtype | None) -> torch.nn.Module:
    """An empty layer in place of one whose weights are packed (GGUF, NF4): it takes and gives the same shapes."""
    kind = dtype or getattr(packed, "compute_dtype", None) or torch.get_default_dtype()
    plain = torch.nn.Linear(packed.in_features, packed.out_features, packed.bias is not None, device="meta", dtype=kind)
    return plain.eval().requires_grad_(False)


class _Stage:
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
            storage = _storage(tensor)
            layer = self.weights.get(storage)
            if layer is not None and self.on and self.on[-1][1] != layer:
                self.seen.used_directly.add(layer)
            if storage in self.outputs:
                self._read_output(self.outputs[storage][1])

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
                self.outputs[_storage(tensor)] = (tensor.untyped_storage(), len(self.calls) - 1)

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
            return _anew(self.memory[key])

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
                raise _Enough

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
                raise _Enough

        denoiser.register_forward_pre_hook(given, with_kwargs=True)
        denoiser.register_forward_hook(enough)
        for layer, module in denoiser.named_modules():
            if isinstance(module, torch.nn.Linear):
                self.weights[_storage(module.weight)] = layer
                module.register_forward_pre_hook(functools.partial(before, layer), with_kwargs=True)
                module.register_forward_hook(after)

    def _decoding(self, vae: Any, decode: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(decode)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.seen.decoded_in.add(next(vae.parameters()).dtype)
            raise _Enough

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


class _RealWhereKnown(TorchDispatchMode):  # type: ignore[misc]
    """Compute with values where all are known. A result of empty tensors is an empty tensor."""

    def __init__(self, stage: _Stage) -> None:
        super().__init__()
        self.stage = stage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self.stage.used(tensors)
        empty = any(tensor.is_meta for tensor in tensors)
        if not empty:
            return func(*args, **kwargs)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("meta")
        if any(tensor.is_meta for tensor in tensors[1:]) and not tensors[0].is_meta and func._schema.is_mutable:
            return args[0]  # written in place with what is not known
        if func is torch.ops.aten.index.Tensor:  # what a mask selects is known where the mask is
            args = (args[0], [place for index in args[1] for place in _places(index)], *args[2:])
        return self._of_shapes(func, args, kwargs) if _makes_new(func) else _of_empty(func, args, kwargs)

    def _of_shapes(self, func: Any, args: Any, kwargs: Any) -> Any:
        """As equal blocks ask for the same again, what was given is remembered: torch takes a millisecond for each."""
        key = (func, _layout(args), _layout(kwargs))
        if key in self.stage.memory:
            return tree_map(_another, self.stage.memory[key])
        self.stage.memory[key] = _of_empty(func, args, kwargs)
        return self.stage.memory[key]


class _Functions(TorchFunctionMode):  # type: ignore[misc]
    """Notes calls of SDPA and of what needs the value of a tensor, which is 1 where it is not known.

    What is made on or moved to the weights' device is made on the CPU instead, where it has values.
    """

    def __init__(self, stage: _Stage) -> None:
        super().__init__()
        self.stage = stage

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func is torch.nn.functional.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
            self.stage.attends(args[0] if args else kwargs["query"], mask is not None)
        elif name in READS and args and isinstance(args[0], torch.Tensor) and func is getattr(torch.Tensor, name, None):
            self.stage.breaks(f"reads a value (Tensor.{name})")
            if args[0].is_meta and name not in ("nonzero", "numpy"):
                return getattr(torch.ones(args[0].shape, dtype=args[0].dtype, device="cpu"), name)()
        if "device" in kwargs and any(isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack()):
            self.stage.breaks("sets a device (with torch.device)")
        return func(*map(_on_cpu, args), **{key: _on_cpu(value) for key, value in kwargs.items()})


@functools.cache
def _makes_new(func: Any) -> bool:
    """Does the operation return new tensors alone, neither views nor what it was given?"""
    schema = func._schema
    return not schema.is_mutable and all(value.alias_info is None for value in (*schema.arguments, *schema.returns))


def _layout(value: Any) -> Any:
    """Of tensors what decides on the layout of what an operation makes of them; other values as they are."""
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, dict):
        return tuple((name, _layout(part)) for name, part in value.items())
    return tuple(map(_layout, value)) if isinstance(value, list | tuple) else (type(value), value)


def _another(leaf: Any) -> Any:
    """An empty tensor of the same layout, in a storage of its own."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")


def _places(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """The index as positions, where it is a mask with values."""
    is_mask = index is not None and index.dtype in (torch.bool, torch.uint8) and not index.is_meta
    return list(torch.nonzero(index).unbind(1)) if is_mask and index is not None else [index]


def _of_empty(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*tree_map(_without_value, args), **tree_map(_without_value, kwargs))


def _without_value(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, torch.Tensor) and not leaf.is_meta else leaf


def _on_cpu(value: Any) -> Any:
    return (
        torch.device("cpu")
        if (isinstance(value, str) and value == "meta") or (isinstance(value, torch.device) and value.type == "meta")
        else value
    )


def _kind(value: Any) -> Any:
    """What of the arguments decides on the shapes that a model works with."""
    if isinstance(value, torch.Tensor):
        # Masks, not timesteps: those are no more than a number for each picture.
        known = not value.is_meta and not value.is_floating_point() and value.dim() > 1 and value.numel() < 10_000
        return (tuple(value.shape), value.dtype, tuple(value.flatten().tolist()) if known else None)
    if isinstance(value, dict):
        return tuple((name, _kind(part)) for name, part in value.items())
    return tuple(map(_kind, value)) if isinstance(value, list | tuple) else repr(value)


def _anew(value: Any) -> Any:
    """An output of the same kind whose tensors are new ones."""
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value)
    if isinstance(value, dict):
        made = {name: _anew(part) for name, part in value.items()}
        return made if type(value) is dict else type(value)(**made)
    return type(value)(map(_anew, value)) if type(value) in (list, tuple) else value


def _storage(tensor: torch.Tensor) -> int:
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
