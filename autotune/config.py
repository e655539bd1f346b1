"""A Config: one value for every knob that acts. Immutable, hashable, ordinary JSON on disk."""

import hashlib
import json
from collections.abc import Iterator, Mapping

Value = bool | int | float | str


class Config(Mapping[str, Value]):
    """Knob name -> value, in the order of the names, so that equal configs print, hash and digest alike."""

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
        """12 hexadecimal digits that name this config in files and caches."""
        if not self._digest:  # asked for at every look into a set of configs
            self._digest = hashlib.sha256(json.dumps(self._values).encode()).hexdigest()[:12]
        return self._digest

    def replace(self, **values: Value) -> "Config":
        return Config({**self._values, **values})


def read_value(text: str) -> Value:
    """The value that a user wrote on the command line: `0.5`, `8`, `true` and anything else as a word."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int | float) else text
