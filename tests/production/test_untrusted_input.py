"""Exported JSON from an unknown source: 5,000 mutations give a valid config or one clear error, and write no file."""

import copy
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import measured, record

from autotune.errors import UserError
from autotune.production.chain import read_exported
from autotune.production.tuned_config import Confirmation, TunedConfig
from autotune.production.untrusted_input import MOST_BYTES, check_file_name
from autotune.tuning.export import export

MUTATIONS = 5000
STRANGE: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        -(2**70),
        10**400,
        0.0,
        -0.5,
        1e308,
        1e-320,
        "",
        " ",
        "\x00",
        "a\x00b",
    ),
    *("/etc/passwd", "../../etc/passwd", "a/..", "file:///etc/passwd", "owner/name", "//host/share", "~/.ssh", "C:\\x"),
    *(
        "\ud800",
        "\u202e",
        "é" * 50,
        "x" * 5000,
        "deepcache:" + "9" * 5000,
        "min_features:²",
        "first_block:nan",
        "1" * 999,
    ),
    *(
        "__import__('os').system('touch pwned')",
        "$(touch pwned)",
        "{0.__class__}",
        "%s%n",
        "<script>",
        "nan",
        "Infinity",
    ),
    *([], {}, [[]], {"": {}}, [1, "2", None], {"dtype": "bf16"}, [0] * 1000),
]


def nested(depth: int) -> Any:
    made: Any = 1
    for level in range(depth):
        made = [made] if level % 2 else {"a": made}
    return made


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value in it."""
    yield path
    if len(path) > 6:
        return
    inside = data.items() if isinstance(data, dict) else enumerate(data[:3]) if isinstance(data, list) else ()
    for key, value in inside:
        yield from places(value, (*path, key))


def put(data: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> None:
    """Apply `change(container, key)` where the path leads."""
    for key in path[:-1]:
        data = data[key]
    change(data, path[-1])


def mutate(data: Any, rng: random.Random) -> str:
    """A copy with a few changes, as text."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        path = rng.choice([p for p in places(data) if p])
        kind = rng.randrange(6)
        strange = nested(rng.choice((5, 100, 300))) if rng.random() < 0.05 else copy.deepcopy(rng.choice(STRANGE))
        if kind == 0:
            put(data, path, lambda inside, key: inside.pop(key))
        elif kind == 1:
            put(data, path, lambda inside, key, s=strange: add(inside, s, rng))
        else:
            put(data, path, lambda inside, key, s=strange: inside.__setitem__(key, s))
    text = json.dumps(data)
    if rng.random() < 0.1:
        at = rng.randrange(len(text))
        junk = rng.choice(("", "NaN", "-Infinity", "[" * 100000, '"', "9" * 5000, "\\ud800", "}", "\x00"))
        text = text[:at] + junk + text[at + rng.randrange(3) :]
    return text


def add(inside: Any, strange: Any, rng: random.Random) -> None:
    if isinstance(inside, dict):
        inside[rng.choice(("dtipe", "trust_remote_code", "vae", "\ud800", "x" * 3000, "__class__", "cache"))] = strange
    else:
        inside.append(strange)


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    """A valid file in which every field is set."""
    rounds = Confirmation(baseline_latency_s=(1.0, 1.1), tuned_latency_s=(0.5, 0.6))
    values = {"quantization": "int8_dynamic", "cache": "deepcache:3", "tome_ratio": 0.5, "steps": 8, "compile": "off"}
    tuned = export(record(make_target(sizes=2)), measured(1, values, also=(1.0,)), measured(0, also=(2.0,)), rounds)
    whole = {"file": "best.artifacts", "sha256": "0" * 64, "bytes": 3}
    return {**tuned.to_json(), "artifacts": whole}


def check_one(path: Path) -> bool:
    """Does it load? Otherwise the error must be one short sentence that can be printed and names the file."""
    try:
        exported = read_exported(path)
    except UserError as error:
        said = str(error)
        assert path.name in said
        assert len(said) < 1500
        assert "\n" not in said
        said.encode("utf-8", "backslashreplace")
        return False
    assert isinstance(exported, TunedConfig)
    assert exported.config
    assert exported.is_measured in (True, False)
    _ = exported.confirmation and exported.confirmation.verdict
    return True


def test_mutated_configs_load_or_are_refused_with_one_sentence_and_leave_nothing(
    good: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, rng, begun = tmp_path / "best.json", random.Random(0), time.process_time()
    loaded = 0
    for number in range(MUTATIONS):
        path.write_text(mutate(good, rng), encoding="utf-8", errors="surrogatepass")
        try:
            loaded += check_one(path)
        except Exception as error:
            pytest.fail(f"mutation {number}: {type(error).__name__}: {str(error)[:500]}")
    assert os.listdir(tmp_path) == ["best.json"]
    assert MUTATIONS / 100 < loaded < MUTATIONS / 2, "both outcomes occur"
    assert time.process_time() - begun < 60


@pytest.mark.parametrize(
    "text", ["[" * 10**6, '{"a":' * 10**6, "9" * 10**6, '{"schema_version": ' + "9" * 5000 + "}", "NaN"]
)
def test_what_breaks_parsers_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "best.json").write_text(text)
    assert not check_one(tmp_path / "best.json")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "best.json").open("wb") as file:
        file.truncate(MOST_BYTES * 2**10)
    with pytest.raises(UserError, match="larger than"):
        TunedConfig.load(tmp_path / "best.json")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "best.json")
    with pytest.raises(UserError, match="it is no file"):
        TunedConfig.load(tmp_path / "best.json")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("source", "../models", "neither a hub id"),
        ("source", "models", "neither a hub id"),
        ("source", "a/..", "neither a hub id"),
        ("source", "https://host/model", "neither a hub id"),
        ("source", "/nowhere/at/all", "is not on this disk"),
        ("source", "/etc/../etc", "neither a hub id"),
        ("controlnet", "..", "neither a hub id"),
        ("lora", "/nowhere.safetensors", "is not on this disk"),
        ("revision", "main/../..", "not a commit of the hub"),
        ("revision", "--flag", "not a commit of the hub"),
        ("scheduler", "os.system", "not the name of a class"),
        ("part_revisions", {"lora": "a b"}, "not a commit of the hub"),
    ],
)
def test_weights_come_from_the_hub_by_id_or_from_a_folder_that_is_there(
    good: dict[str, Any], tmp_path: Path, field: str, value: Any, says: str
) -> None:
    data = {**good, "pipeline": {**good["pipeline"], field: value}}
    (tmp_path / "best.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=says):
        TunedConfig.load(tmp_path / "best.json")


@pytest.mark.parametrize("name", ["../best.artifacts", "/tmp/x", "a/b", "..", ".hidden", "", "a\x00b", "a..b/"])
def test_a_file_beside_the_config_is_a_plain_name(name: str) -> None:
    with pytest.raises(UserError, match="not a plain file name"):
        check_file_name(name)


def test_remote_code_can_not_be_asked_for(good: dict[str, Any], tmp_path: Path) -> None:
    for place in ("pipeline", "knobs", "workload"):
        (tmp_path / "best.json").write_text(json.dumps({**good, place: {**good[place], "trust_remote_code": True}}))
        with pytest.raises(UserError, match=r"trust_remote_code"):
            TunedConfig.load(tmp_path / "best.json")
    sources = (path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "autotune").rglob("*.py"))
    assert not [text for text in sources if "trust_remote_code=" in text]


def test_a_bomb_of_empty_lists_is_refused_at_once(good: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text(json.dumps(good | {"pictures": [[]] * 200_000}))
    assert path.stat().st_size < MOST_BYTES
    began = time.process_time()  # other tests run at the same time
    with pytest.raises(UserError, match="lists have more than"):
        TunedConfig.load(path)
    assert time.process_time() - began < 5.0  # it was 53 s
