"""The JSON Schema of what autotune exports: of one config, and of a chain of them. Read off the models themselves."""

from typing import Any

from pydantic import TypeAdapter

from autotune.production.chain import ChainConfig
from autotune.production.tuned_config import SCHEMA_VERSION, TunedConfig


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12. Files of every version up to SCHEMA_VERSION keep to it.

    Which knobs there are, and which values they take, it does not say: other packages add to them.
    """
    made = TypeAdapter(TunedConfig | ChainConfig).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"autotune's exported config, schema version {SCHEMA_VERSION}",
        **made,
    }
