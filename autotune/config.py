"""Config: one value for every active knob, as plain JSON. Range: the numbers that a knob may take.

In a space file a range is a word, `"8..50"`, `"64..512, step 8"`, `"0.03..0.2, log"` or `"first_block:0.03..0.2, log"`,
or a table, `{ low = 0.03, high = 0.2, log = true }`. Two whole ends make a range of whole numbers.

Numbers that are not whole have three significant digits: no measurement tells a threshold of 0.1234 from 0.123, and
equal numbers are one config.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import model_validator

from autotune.frozen_model import FrozenModel

Value = bool | int | float | str
Number = int | float

DIGITS = 3  # significant ones of a number that is not whole
EVENLY = 5  # numbers of a grid
FINEST = 6  # halvings of the range, around a number: 1/64 of it
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_WORD = re.compile(
    rf"(?P<prefix>[A-Za-z_]\w*:)?\s*(?P<low>{_NUMBER})\s*\.\.\s*(?P<high>{_NUMBER})\s*(?P<log>,\s*log)?"
    r"(?:,\s*step\s+(?P<step>\d+))?"
)


class Config(Mapping[str, Value]):
    """Knob name -> value, sorted by name, so that equal configs have the same text, hash and digest."""

    __slots__ = ("_digest", "_values")

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = {name: values[name] for name in sorted(values)}
        self._digest = ""

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.digest == other.digest

    def __repr__(self) -> str:
        return f"Config({self._values!r})"

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that identify this config in files and caches."""
        if not self._digest:  # computed once: every look-up in a set of configs needs it
            self._digest = hashlib.sha256(json.dumps(self._values).encode()).hexdigest()[:12]
        return self._digest

    def replace(self, **values: Value) -> "Config":
        """The same config with these values changed or added."""
        return Config({**self._values, **values})


def read_value(text: str) -> Value:
    """The value of a word on the command line: `0.5`, `8` and `true` are read as JSON, anything else is a string."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int | float) else text


class Range(FrozenModel):
    """The numbers from `low` to `high`, both included.

    log     the scale is logarithmic: from 1 to 10 is as far as from 10 to 100
    step    of whole numbers on an even scale: the distance between two of them
    prefix  the text in front of the number in the knob's value, such as "first_block:"; "": the value is the number
    """

    low: Number
    high: Number
    log: bool = False
    step: int = 1
    prefix: str = ""

    @model_validator(mode="before")
    @classmethod
    def _no_switches(cls, data: Any) -> Any:
        ends = [data.get(name) for name in ("low", "high")] if isinstance(data, dict) else []
        if any(isinstance(end, bool) for end in ends):
            raise ValueError("low and high are numbers, not true or false")
        if any(isinstance(end, float) for end in ends) and all(isinstance(end, Number) for end in ends):
            return {**data, "low": float(data["low"]), "high": float(data["high"])}
        return data

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.low}..{self.high} is no range: the first number must be less than the second")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.low}..{self.high} has no logarithms: begin above 0, or leave out log")
        if self.step != 1 and (self.log or not self.is_whole or not 0 < self.step <= self.high - self.low):
            raise ValueError(f"step {self.step} is for whole numbers on an even scale, and within the range")
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    def __str__(self) -> str:
        more = f"{', log' if self.log else ''}{f', step {self.step}' if self.step != 1 else ''}"
        return f"{self.prefix}{self.low}..{self.high}{more}"

    def __contains__(self, value: object) -> bool:
        return self.number(value) is not None

    def value(self, number: Number) -> Value:
        """The knob's value with this number."""
        return f"{self.prefix}{number:.10g}" if self.prefix else number

    def number(self, value: object) -> Number | None:
        """The number in a value of the knob; None: the value is not of this range. True is not 1, 1 is not 1.0."""
        number = value
        if self.prefix:
            if not isinstance(value, str) or not value.startswith(self.prefix):
                return None
            text = value.removeprefix(self.prefix)
            if not re.fullmatch(_NUMBER, text) or (self.is_whole and not text.isdecimal()):
                return None
            number = int(text) if self.is_whole else float(text)
            if self.value(number) != value:
                return None  # "0.050": another text is another config
        if not isinstance(number, int if self.is_whole else float) or isinstance(number, bool):
            return None
        is_step = self.step == 1 or (number - self.low) % self.step == 0
        return number if self.low <= number <= self.high and is_step else None

    def position(self, number: Number) -> float:
        """Where a number lies, on the range's scale: 0.0 at the low end, 1.0 at the high end."""
        if self.log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def at(self, position: float) -> Number:
        """The number at a position, rounded as this file says; positions outside 0 to 1 are the ends."""
        if self.step == 1 and (position <= 0 or position >= 1):
            return self.high if position >= 1 else self.low
        number: float = self.low + position * (self.high - self.low)
        if self.log:
            number = self.low * (self.high / self.low) ** position
        if not self.is_whole:
            return min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)
        steps = round((min(max(number, self.low), self.high) - self.low) / self.step)
        return min(int(self.low) + steps * self.step, int(self.high) - int(self.high - self.low) % self.step)

    def grid(self) -> tuple[Value, ...]:
        """A few values, evenly spread over the range with its ends, ascending."""
        numbers = dict.fromkeys(self.at(step / (EVENLY - 1)) for step in range(EVENLY))
        return tuple(self.value(number) for number in numbers)

    def around(self, value: Value) -> tuple[Value, ...]:
        """Values around this one of the range: a quarter of the range away on both sides, an eighth, and so on."""
        number = self.number(value)
        assert number is not None, f"{value!r} is not in {self}"
        here = self.position(number)
        steps = [sign * 0.5**halvings for halvings in range(2, FINEST + 1) for sign in (-1, 1)]
        near = dict.fromkeys(self.at(here + step) for step in steps if 0 <= here + step <= 1)
        if self.is_whole:  # the next ones, however long the range is
            near |= dict.fromkeys(n for n in (number - self.step, number + self.step) if self.low <= n <= self.high)
        return tuple(self.value(n) for n in near if n != number)


def read_range(word: str) -> dict[str, Any] | None:
    """The fields of the range that this word names, unchecked; None: the word names none."""
    found = _WORD.fullmatch(word.strip())
    if found is None:
        return None
    ends = {name: _read_number(found[name]) for name in ("low", "high")}
    return {**ends, "log": found["log"] is not None, "step": int(found["step"] or 1), "prefix": found["prefix"] or ""}


def _read_number(text: str) -> Number:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
