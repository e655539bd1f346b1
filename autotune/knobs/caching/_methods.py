"""_methods: what a file of a method of caching says, and all methods by name. A helper of the knob `cache`.

A value of the knob is the method's name and a number: "deepcache:3". A file of this folder whose name begins with "_"
and that has a `METHOD` is found by itself; it imports torch, diffusers and its package inside functions only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from autotune.config import Config
from autotune.knob import Effect, Script, no_objection
from autotune.target import Target


def integer(least: int) -> Callable[[str], bool]:
    """Is a text a whole number of at least this?"""
    return lambda text: text.isdecimal() and text.isascii() and int(text) >= least


def share(text: str) -> bool:
    """Is the text a number between 0 and 1?"""
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to reuse what the denoiser computed a step before.

    name      "first_block" in "first_block:0.05"
    numbers   those that a search tries: intervals, or thresholds
    between   the ends of the range in which a search may try others: whole numbers, or thresholds on a logarithmic
              scale; None: only those listed
    accepts   is this text one of its numbers?
    steps     the fewest steps of a call in which anything is reused
    why_not   (target) -> why the method is not available, as a clause; None: it is
    clash     (config, target) -> why it can't be combined with another knob's value; None: it can
    apply     (pipe, number) -> Effect. It counts each call with `Calls`, and drops what it keeps where a call is new
    prepare   (pipe, known) -> numbers, called once, before the first call of the built pipe; it may call the pipe. The
              numbers are kept, and given as `known` to a later process, whatever its number is; empty: nothing is known
    script    (number, config, target) -> its lines in a plain script
    blocks    does it decide for whole blocks, outside of what regional compilation compiles?
    """

    name: str
    numbers: tuple[str, ...]
    accepts: Callable[[str], bool]
    apply: Callable[[Any, str], Effect]
    script: Callable[[str, Config, Target], Script]
    between: tuple[int, int] | tuple[float, float] | None = None
    steps: int = 2
    why_not: Callable[[Target], str | None] = no_objection
    clash: Callable[[Config, Target], str | None] = no_objection
    prepare: Callable[[Any, tuple[float, ...]], tuple[float, ...]] | None = None
    blocks: bool = True


@cache
def all_methods() -> Mapping[str, Method]:
    """Every method by name, in the order of the files' names."""
    package = __name__.rpartition(".")[0]
    names = [m.name for m in iter_modules(import_module(package).__path__) if m.name.startswith("_")]
    modules = [import_module(f"{package}.{name}") for name in names if f"{package}.{name}" != __name__]
    methods = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    return {method.name: method for method in methods}
