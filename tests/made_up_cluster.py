"""MadeUp: a cluster without Ray, for tests: its cards answer at once, or as a test says."""

from collections.abc import Callable
from pathlib import Path

from made_up import measured

from autotune.cluster.messenger import Done, Lost, News, Ready
from autotune.cluster.order import Order, Result

Answer = Callable[["MadeUp", int, int, Order], list[News]]


class MadeUp:
    """A cluster of cards that answer in turn, the one that waits longest first.

    slow    card -> how many times slower it is
    answer  replaces what a card says to an order: (cluster, ticket, card, order) -> news
    """

    def __init__(self, folder: Path, hosts: list[str], *, slow: dict[int, float] | None = None) -> None:
        self.folder, self.slow = folder, slow or {}
        self.waiting: list[News] = [Ready(card, host) for card, host in enumerate(hosts)]
        self.given: list[tuple[int, int, Order]] = []
        self.most_at_once = self.at_once = 0
        self.answer: Answer = lambda cluster, ticket, card, order: [cluster.done(ticket, card, order)]
        self.closed = False

    def done(self, ticket: int, card: int, order: Order, **fields: object) -> Done:
        files = self.folder / "arriving" / str(ticket)
        (files if "anchors" in order.place else files / "images").mkdir(parents=True)
        (files / "log.txt").write_text(f"card {card}")
        latency_s = (1.0 - 0.3 * (order.values["dtype"] == "bf16")) * self.slow.get(card, 1.0)
        outcome = measured(1, order.config, latency_s=latency_s).outcome
        return Done(ticket, Result(**{"seconds": 3.0, "outcome": outcome, **fields}), files)

    def give(self, ticket: int, card: int, order: Order, root: Path) -> None:
        self.given.append((ticket, card, order))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.waiting += self.answer(self, ticket, card, order)

    def news(self, timeout_s: float) -> News | None:
        if not self.waiting:
            return None
        found = self.waiting.pop(0)
        self.at_once -= isinstance(found, Done | Lost)
        return found

    def close(self) -> None:
        self.closed = True


def made_up(tmp_path: Path, hosts: tuple[str, ...] = ("a", "a", "b", "b"), **options: object) -> MadeUp:
    return MadeUp(tmp_path, list(hosts), **options)  # type: ignore[arg-type]
