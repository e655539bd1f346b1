"""Courier: what it keeps in Ray's store is what is on disk when an order is given."""

from pathlib import Path
from typing import Any

import pytest

from autotune.cluster import courier as module
from autotune.cluster.courier import Courier


def test_files_are_put_once_and_again_where_one_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures that a pick's are judged by: their folder is empty when the order to draw them is given."""
    put: list[Any] = []
    monkeypatch.setattr(module.ray, "put", lambda parcel: put.append(parcel) or len(put))
    courier = object.__new__(Courier)
    courier.parcels = {}
    folder = tmp_path / "images"
    assert courier._parcel(str(folder)) == 1
    assert put[-1] == {}
    folder.mkdir()
    (folder / "000.png").write_bytes(b"picture")
    assert courier._parcel(str(folder)) == courier._parcel(str(folder)) == 2
    assert put[-1] == {"000.png": b"picture"}
