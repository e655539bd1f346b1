"""schema(): the JSON Schema of the exported JSON, of one config or a chain, generated from the models."""

from typing import Any

from pydantic import TypeAdapter

from autotune.production.chain import ChainConfig
from autotune.production.tuned_config import SCHEMA_VERSION, TunedConfig


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of exported files of every version up to SCHEMA_VERSION.

    It does not list the knobs and their values, because other packages can add knobs.
    """
    generated = TypeAdapter(TunedConfig | ChainConfig).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"autotune's exported config, schema version {SCHEMA_VERSION}",
        **generated,
    }
