"""Config: one value for every active knob. Immutable, hashable, a plain JSON object on disk."""

import hashlib
import json
from collections.abc import Iterator, Mapping

Value = bool | int | float | str


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
