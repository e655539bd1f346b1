"""The courier process as the search sees it: what happens when it ends. A fake stands in for the one that loads Ray."""

import json
import sys
from pathlib import Path

import pytest
from conftest import make_target

from autotune.cluster import messenger
from autotune.cluster.messenger import Done, Gone, Lost, News, RayMessenger, Ready
from autotune.cluster.order import make_order
from autotune.cluster.settings import Settings
from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.knobs import complete
from autotune.study_folder import StudyFolder

# Two cards come; the first order is answered, the second ends the process, as Ray ends its driver without a head.
COURIER = """
import json, os, sys
from pathlib import Path
print(json.dumps({"says": "cards", "count": 2, "there": 2}), flush=True)
for card in (0, 1):
    print(json.dumps({"says": "ready", "card": card, "host": "a"}), flush=True)
for number, line in enumerate(sys.stdin):
    order = json.loads(line)
    if number == 1:
        os._exit(1)
    Path(order["to"]).mkdir(parents=True)
    print(json.dumps({"says": "done", "ticket": order["ticket"], "result": {"trouble": "none."}}), flush=True)
"""


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayMessenger:
    (tmp_path / "courier.py").write_text(COURIER)
    monkeypatch.setattr(messenger, "COMMAND", (sys.executable, str(tmp_path / "courier.py")))
    monkeypatch.setattr(messenger, "PAUSE_S", (0.0,) * 5)
    return RayMessenger(Settings(address="here"), tmp_path / "messages")


def heard(found: RayMessenger, count: int) -> list[News]:
    news = [found.news(20.0) for _ in range(count + 1)]  # one of them tells the number of cards, and is no news
    return [each for each in news if each is not None]


def give(found: RayMessenger, tmp_path: Path, ticket: int, card: int) -> None:
    runner = Runner(StudyFolder(tmp_path), make_target(), 60.0)
    found.give(ticket, card, make_order(runner, tmp_path / "trials" / "0001", complete({})), tmp_path)


def test_when_the_courier_ends_its_cards_go_first_then_its_orders_are_lost_and_it_starts_again(
    tmp_path: Path, opened: RayMessenger
) -> None:
    """A card that is still there would be given what was lost with it."""
    assert heard(opened, 2) == [Ready(0, "a"), Ready(1, "a")]
    give(opened, tmp_path, 1, 0)
    done = opened.news(20.0)
    assert isinstance(done, Done)
    assert done.ticket == 1
    assert done.files.is_dir()
    give(opened, tmp_path, 2, 1)
    why = "the process that talks to Ray has ended"
    assert [opened.news(20.0) for _ in range(2)] == [Gone((0, 1)), Lost(2, why)]
    assert heard(opened, 2) == [Ready(0, "a"), Ready(1, "a")], "the courier was started again"
    opened.close()
    assert opened._process is None


# At the first order, the first of its processes says this, and then ends or goes on.
GARBLES = """
import json, os, sys
print(json.dumps({"says": "ready", "card": 0, "host": "a"}), flush=True)
sys.stdin.readline()
sys.stdout.buffer.write(LINE)
sys.stdout.flush()
if ENDS:
    os._exit(1)
sys.stdin.read()
"""


@pytest.mark.parametrize("line", [b'{"says": "rea', b"\xff\xfe\n", b"3\n", b'{"ticket": 1}\n', b"\n"])
def test_a_line_that_is_no_message_loses_no_order_and_is_said_once(
    tmp_path: Path,
    opened: RayMessenger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    line: bytes,
) -> None:
    """One without an end is of a process that was killed while it wrote."""
    source = GARBLES.replace("LINE", repr(line)).replace("ENDS", str(not line.endswith(b"\n")))
    (tmp_path / "garbles.py").write_text(source)
    monkeypatch.setattr(messenger, "COMMAND", (sys.executable, str(tmp_path / "garbles.py")))
    assert opened.news(20.0) == Ready(0, "a")
    give(opened, tmp_path, 1, 0)
    assert opened.news(20.0) == Gone((0,))
    lost = opened.news(20.0)
    assert isinstance(lost, Lost)
    assert (lost.ticket, "has said what is no message" in lost.why) == (1, True)
    assert opened.news(20.0) == Ready(0, "a"), "it was started again"
    give(opened, tmp_path, 2, 0)
    assert [opened.news(20.0) for _ in range(2)] == [Gone((0,)), Lost(2, lost.why)]
    assert len([record for record in caplog.records if "no message" in record.message]) == 1
    opened.close()


def test_a_cluster_that_is_never_reached_ends_the_search_with_the_reason(
    tmp_path: Path, opened: RayMessenger, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = json.dumps({"says": "unreachable", "why": "ConnectionError: nobody answers"})
    monkeypatch.setattr(messenger, "COMMAND", (sys.executable, "-c", f"print({says!r})"))
    with pytest.raises(UserError, match=r"the Ray cluster here can't be reached \(ConnectionError: nobody answers\)"):
        list(iter(lambda: opened.news(20.0), "never"))
    opened.close()


def test_a_result_with_fields_of_another_version_refuses_the_card_by_name(opened: RayMessenger) -> None:
    news = opened._understood({"says": "done", "ticket": 7, "result": {"of": "tomorrow"}})
    assert isinstance(news, Done)
    assert news.result.refused is not None
    assert news.result.refused.startswith("it has another autotune (the result of a worker can't be used: of: extra")


# Without the token it says that nobody answers, with it a card comes.
ASKS = """
import json, os, sys
known = os.environ.get("RAY_AUTH_MODE") == "token"
if not known:
    print("RPC error: InvalidAuthToken: Authentication token is missing or incorrect", file=sys.stderr, flush=True)
says = {"says": "ready", "card": 0, "host": "a"} if known else {"says": "unreachable", "why": "nobody answers"}
print(json.dumps(says), flush=True)
"""


def test_a_cluster_that_asks_for_a_token_is_given_that_of_the_user(
    tmp_path: Path, opened: RayMessenger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messenger, "COMMAND", (sys.executable, "-c", ASKS))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of this user")
    assert [opened.news(20.0) for _ in range(2)] == [None, Ready(0, "a")]
    opened.close()


def test_a_cluster_without_cards_says_how_to_start_one(opened: RayMessenger, monkeypatch: pytest.MonkeyPatch) -> None:
    says = json.dumps({"says": "cards", "count": 0, "there": 0})
    monkeypatch.setattr(messenger, "COMMAND", (sys.executable, "-c", f"print({says!r})"))
    with pytest.raises(UserError, match=r"has no GPU: start its nodes with `ray start --num-gpus N`"):
        opened.news(20.0)
    opened.close()
