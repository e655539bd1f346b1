"""The exported JSON of a chain; how chains are measured and loaded is tested in tests/tuning/test_chain.py."""

import json
from pathlib import Path

import pytest

import autotune
from autotune.errors import UserError


def test_a_newer_chain_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chain.json").write_text(json.dumps({"kind": "chain", "schema_version": 99}))
    with pytest.raises(UserError, match="upgrade autotune"):
        autotune.load(tmp_path / "chain.json")
