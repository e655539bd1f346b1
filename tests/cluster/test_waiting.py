"""Work that waits for a card: which card may take it."""

from itertools import product

import pytest

from autotune.cluster.cards import Card
from autotune.cluster.waiting import Work, fits
from autotune.knobs import complete

OFF = (None, 0.06)


def cards(hosts: str, offs: tuple[float | None, ...]) -> list[Card]:
    return [Card(i, f"{host}/gpu-{i}", host, off=off) for i, (host, off) in enumerate(zip(hosts, offs, strict=True))]


@pytest.mark.parametrize("hosts", ["a", "aa", "ab", "aab", "abb"])
def test_there_is_a_card_for_all_work_as_long_as_a_card_takes_part(hosts: str) -> None:
    """Otherwise a search would wait for ever: for what leads and was lost on the only card that is not off, too."""
    for offs, leads in product(product(OFF, repeat=len(hosts)), (False, True)):
        there = cards(hosts, offs)
        for lost_on in (None, *there, Card(9, "z/gpu-0", "z")):
            work = Work(3, complete({}), "sampler", lost_on=lost_on, leads=leads)
            assert any(fits(work, card, there) for card in there), (offs, lost_on)


def test_what_is_lost_goes_to_another_host_and_what_leads_to_a_card_that_is_not_off() -> None:
    there = cards("aabb", (None, None, 0.06, None))
    lost = Work(3, complete({}), "sampler", lost_on=there[0])
    assert [fits(lost, card, there) for card in there] == [False, False, True, True]
    leading = Work(3, complete({}), "sampler", leads=True)
    assert [fits(leading, card, there) for card in there] == [True, True, False, True]
    both = Work(3, complete({}), "sampler", lost_on=there[0], leads=True)
    assert [fits(both, card, there) for card in there] == [False, False, False, True]
