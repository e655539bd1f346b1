"""Crew: the cards that a messenger reaches, and what is told of them. All that a search does with them shares it."""

import itertools
import shutil
from pathlib import Path
from typing import Self

from autotune.cluster.cards import Card
from autotune.cluster.messenger import Gone, Messenger, Ready


class Crew:
    """The cards that a messenger reaches, as long as the block of `with` lasts: then all that runs is ended.

    tickets  the numbers of orders: no two are the same
    """

    def __init__(self, messenger: Messenger) -> None:
        self.messenger = messenger
        self.cards: dict[int, Card] = {}
        self.tickets = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.messenger.close()

    def joined(self, news: Ready) -> tuple[str, str]:
        """A card has come, or has come back. Returns its name and what is to be said of it."""
        old = self.cards.get(news.card)
        if old is not None and old.host == news.host:  # its node was restarted, or the connection was
            old.is_here, old.since, old.uuid, old.fetched = True, None, None, False
            return old.name, "is back"
        others = sum(card.host == news.host for card in self.cards.values())
        card = Card(news.card, f"{news.host}/gpu-{others}", news.host)
        self.cards[news.card] = card
        return card.name, "takes part"

    def left(self, news: Gone) -> list[tuple[str, str]]:
        gone = [self.cards[index] for index in news.cards]
        for card in gone:
            card.is_here = False
        return [(card.name, "is gone with its node") for card in gone]


def keep_files(files: Path, place: Path) -> None:
    """Move the files of a run to their place in the study."""
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    files.mkdir(parents=True, exist_ok=True)
    shutil.move(files, place)
