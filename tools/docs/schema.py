"""schema: the page of the exported JSON, made from its JSON Schema and the docstrings of its models."""

import json
from typing import Any

from autotune.production.schema import schema
from tools.docs.outcomes import table
from tools.docs.sources import with_lists


def page() -> str:
    """A section a model: its docstring, and its fields with type and default. The whole schema stands at the end."""
    whole = schema()
    definitions: dict[str, Any] = whole["$defs"]
    parts = [
        "# The exported JSON",
        "`best.json` is one `TunedConfig`, the JSON of a chain one `ChainConfig`. `autotune schema` prints the JSON "
        "Schema (draft 2020-12). The knobs and their values are not listed in it, because packages can add knobs: "
        "see [Knobs](knobs.md). A file of an older version loads; one of a newer version is refused.",
    ]
    first = ("TunedConfig", "ChainConfig")
    for name in [*first, *(n for n in sorted(definitions) if n not in first)]:
        parts += _section(name, definitions[name])
    parts += ["## The whole schema", f'??? note "JSON Schema"\n\n{_indented(json.dumps(whole, indent=1))}']
    return "\n\n".join(parts)


def _section(name: str, definition: dict[str, Any]) -> list[str]:
    about, _, more = definition.get("description", "").partition("\n")
    parts = [f"## {name}", " ".join(about.split())]
    parts += [with_lists(more.strip("\n"))] if more.strip() else []
    rows = [
        (f"`{field}`", _type(of), f"`{json.dumps(of['default'])}`" if "default" in of else "")
        for field, of in definition.get("properties", {}).items()
    ]
    return [*parts, table(("field", "type", "default"), rows)] if rows else parts


def _type(of: dict[str, Any]) -> str:
    if "$ref" in of:
        name = of["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in of:
        return " or ".join(dict.fromkeys(_type(each) for each in of["anyOf"]))
    if "const" in of or "enum" in of:
        return ", ".join(f"`{json.dumps(value)}`" for value in of.get("enum", [of.get("const")]))
    if of.get("type") == "array":
        inner = of.get("items") or {}
        return f"list of {_type(inner)}" if inner else "list"
    if of.get("type") == "object" and isinstance(of.get("additionalProperties"), dict):
        return f"object of {_type(of['additionalProperties'])}"
    return str(of.get("type", "anything"))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in ("```json", *text.splitlines(), "```"))
