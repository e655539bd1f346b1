"""traits_once(): the Traits of a tiny checkpoint, found out once for all processes of a run: it takes a second each."""

import os
from pathlib import Path

from autotune.pipeline import Pipeline, Traits
from autotune.pipelines.inspect import traits_of


def traits_once(name: str, pipeline: Pipeline) -> Traits:
    """What traits_of() says of the pipeline that all tests know by this name."""
    kept = Path(os.environ["COMPILED_BY_TESTS"]) / f"traits-{name}.json"
    if not kept.exists():
        made = kept.with_suffix(f".{os.getpid()}")
        made.write_text(traits_of(pipeline).model_dump_json(), encoding="utf-8")
        made.replace(kept)
    return Traits.model_validate_json(kept.read_text(encoding="utf-8"))
