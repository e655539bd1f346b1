"""CUDA answers: what torch.cuda says of the visible cards while libraries load, without starting CUDA.

Importing diffusers imports torchao, which asks for the card's compute capability. torch would start CUDA for that, and
a process that has started CUDA can't be forked. So the questions are answered from what NVML or the probe has told: the
same answers, from another source. A question that has no answer here goes to torch, which starts CUDA; then the fork
server refuses to fork, and says which module has asked.

A library may keep a function or an answer: the functions ask torch itself once the libraries are loaded, and so do the
properties for what they do not hold.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from autotune.device import Device


class Properties:
    """torch's properties of a card, as far as they are known. Any other is asked of torch, which starts CUDA."""

    def __init__(self, device: Device, real: Callable[[], Any]) -> None:
        known = {"name": device.name, "total_memory": device.memory_bytes or None}
        if device.compute_capability is not None:
            known |= dict(zip(("major", "minor"), device.compute_capability, strict=True))
        known["multi_processor_count"] = device.multiprocessors
        self.__dict__.update({name: value for name, value in known.items() if value is not None})
        self._real = real

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by copy and pickle, of an object that is not made yet
            raise AttributeError(name)
        return getattr(self._real(), name)


@contextmanager
def answered(cards: Sequence[Device]) -> Iterator[list[str]]:
    """Inside the block, torch.cuda answers for these cards, in CUDA's order. Yields the modules that started CUDA.

    cards  none: torch answers everything itself
    """
    import torch

    cuda, loading, starters, real = torch.cuda, [True], list[str](), dict[str, Callable[..., Any]]()
    answers = _answers(cards, real) if cards and cuda._is_compiled() else {}
    real |= {name: getattr(cuda, name) for name in ("_lazy_init", *answers)}

    def start() -> None:
        if loading and not cuda.is_initialized():
            starters.append(_asker())
        real["_lazy_init"]()

    def told(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def function(*args: Any, **options: Any) -> Any:
            try:
                return answer(*args, **options) if loading else real[name](*args, **options)
            except NotTold:
                return real[name](*args, **options)

        return function

    for name, function in {"_lazy_init": start, **{n: told(n, answer) for n, answer in answers.items()}}.items():
        setattr(cuda, name, function)
    try:
        yield starters
    finally:
        loading.clear()
        for name, function in real.items():
            setattr(cuda, name, function)


class NotTold(Exception):
    """The question has no answer here."""


def _answers(cards: Sequence[Device], real: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Function of torch.cuda -> what it answers. `real`: torch's own functions."""

    def properties(device: Any = None) -> Properties:
        index = _index(device)
        if not 0 <= index < len(cards):
            raise NotTold
        return Properties(cards[index], lambda: real["get_device_properties"](index))

    def capability(device: Any = None) -> tuple[int, int]:
        told = properties(device)
        return told.major, told.minor

    return {
        "is_available": lambda: True,
        "device_count": lambda: len(cards),
        "current_device": lambda: 0,
        "get_device_properties": properties,
        "get_device_capability": capability,
        "get_device_name": lambda device=None: properties(device).name,
    }


def _index(device: Any) -> int:
    """The number of a card by torch's ways to name it: None, 1, "cuda", "cuda:1", torch.device."""
    if device is None or isinstance(device, int):
        return device or 0
    kind, _, number = str(device).partition(":")
    if kind != "cuda":
        raise NotTold
    return int(number or 0)


def _asker() -> str:
    """The module, other than torch's own and this one, whose code is running."""
    frame = sys._getframe()
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in ("torch", "importlib", "contextlib") and name != __name__:
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return "torch"
