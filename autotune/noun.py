"""The base of every noun: a frozen pydantic model that can be read from JSON, and says in a sentence why not."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from autotune.errors import LONGEST_SHOWN, UserError


class Noun(BaseModel):
    """Frozen, and strict about unknown fields: a typo in a file is an error, never ignored."""

    # Built when it is first used: production loads a config without most of the nouns that it could.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """The noun in `data` (decoded JSON or TOML); raises UserError naming the first bad field of `where`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the whole"
            said = first["msg"].lower()  # may quote what was given
            raise UserError(f"{where} can't be used: {field[:LONGEST_SHOWN]}: {said[:200]}.") from None

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
