"""Hub kernels: no code of the hub runs unless the user allows it, and the recorded commit is what is loaded. Fakes."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from diffusers.models import attention_dispatch

from autotune.devices import hub_kernels
from autotune.devices.attention_calls import ask
from autotune.errors import UserError

COMMIT, OTHER = "a" * 40, "b" * 40
NAME = attention_dispatch.AttentionBackendName.FLASH_HUB


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, int | None]]:
    """(revision, version) of every kernel that `kernels` is asked for. It is not installed; nothing is downloaded."""
    asked: list[tuple[str | None, int | None]] = []

    def get_kernel(repo_id: str, *, revision: Any, version: Any, **_: Any) -> ModuleType:
        asked.append((revision, version))
        module = ModuleType("fake_kernel")
        module.__file__ = f"/cache/kernels--flash/snapshots/{revision or COMMIT}/build/torch/__init__.py"
        exec("def flash_attn_func(*args, **kwargs): return args[0]", module.__dict__)
        module.flash_attn_interface = SimpleNamespace(_flash_attn_forward=1, _flash_attn_backward=1)  # type: ignore
        monkeypatch.setitem(sys.modules, "fake_kernel", module)
        return module

    package = ModuleType("kernels")
    package.get_kernel = get_kernel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kernels", package)
    monkeypatch.setattr(attention_dispatch, "is_kernels_available", lambda: True)
    monkeypatch.setattr(attention_dispatch, "is_kernels_version", lambda *_: True)
    monkeypatch.setattr(attention_dispatch, "HF_HUB_OFFLINE", True)
    config = attention_dispatch._HUB_KERNELS_REGISTRY[NAME]
    fresh = attention_dispatch._HubKernelConfig(config.repo_id, config.function_attr, version=config.version)
    monkeypatch.setitem(attention_dispatch._HUB_KERNELS_REGISTRY, NAME, fresh)
    monkeypatch.setattr(attention_dispatch._AttentionBackendRegistry, "list_backends", lambda: [NAME])
    return asked


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_HUB_KERNELS", "accept")


def test_nothing_is_loaded_unless_the_user_allows_it(loads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOTUNE_HUB_KERNELS", raising=False)
    with pytest.raises(UserError, match=r"flash_hub of kernels-community/flash-attn2 runs code .*AUTOTUNE_HUB"):
        hub_kernels.fetch("flash_hub", COMMIT)
    assert ask("cpu", ()) == ({}, {})
    assert loads == []


def test_a_worker_fetches_the_recorded_kernels_at_their_commits_and_says_which_it_can_not_have(
    loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"flash_hub": OTHER, "lora": "c" * 40}
    monkeypatch.delenv("AUTOTUNE_HUB_KERNELS", raising=False)
    hub_kernels.fetch_recorded(parts)
    assert loads == [], "it is not allowed there"
    monkeypatch.setenv("AUTOTUNE_HUB_KERNELS", "accept")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub_kernels.fetch_recorded(parts)
    assert loads == [(OTHER, None)]

    def unreachable(*args: object, **options: object) -> None:
        raise OSError("the hub is not in reach.\nMore.")

    monkeypatch.setattr(hub_kernels, "fetch", unreachable)
    with pytest.raises(UserError, match=rf"flash_hub of the hub can't be had here at {OTHER} \(OSError: the hub"):
        hub_kernels.fetch_recorded(parts)


def test_the_commit_that_was_loaded_is_told(loads: list[Any], allowed: None) -> None:
    assert hub_kernels.fetch("flash_hub") == COMMIT
    assert loads == [(None, 3)]


def test_the_recorded_commit_is_loaded_which_is_also_found_without_a_network(loads: list[Any], allowed: None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert hub_kernels.fetch("flash_hub", OTHER) == OTHER
    assert loads == [(OTHER, None)]


def test_a_commit_that_nobody_has_accepted_is_not_loaded(
    loads: list[Any], allowed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proposed change is a commit of the repository, too, and an exported file may name it."""
    asked: list[Any] = []

    def list_repo_commits(self: Any, repository: str, **how: Any) -> list[Any]:
        asked.append((repository, how))
        return [SimpleNamespace(commit_id=COMMIT)]

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_commits", list_repo_commits)
    with pytest.raises(UserError, match="is not one of its version 3: it is not loaded"):
        hub_kernels.fetch("flash_hub", OTHER)
    assert loads == []
    assert asked == [("kernels-community/flash-attn2", {"repo_type": "kernel", "revision": "v3"})]
    assert hub_kernels.fetch("flash_hub", COMMIT) == COMMIT


def test_the_probe_says_in_a_sentence_why_a_kernel_can_not_be_had(
    loads: list[Any], allowed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ValueError("Version 3 is not in the cache and the hub is in offline mode.\nMore.")

    monkeypatch.setattr(sys.modules["kernels"], "get_kernel", offline)
    answers, commits = ask("cpu", ())
    assert set(answers["flash_hub"].values()) == {
        "can't be loaded: ValueError: Version 3 is not in the cache and the hub is in offline mode."
    }
    assert commits == {}


def test_files_of_no_commit_are_refused() -> None:
    assert hub_kernels.commit_of(f"/x/snapshots/{COMMIT}/build/__init__.py") == COMMIT
    assert hub_kernels.commit_of("/home/me/flash/build/__init__.py") is None
    assert hub_kernels.commit_of("/x/snapshots") is None
