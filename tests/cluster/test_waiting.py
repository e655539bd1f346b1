"""Work that waits for a card: which card may take it."""

from itertools import product

import pytest

from autotune.cluster.cards import Card
from autotune.cluster.waiting import Waiting, Work, fits
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
            for homes in (frozenset[str](), frozenset("a"), frozenset("z")):
                work = Work(3, complete({}), "sampler", lost_on=lost_on, leads=leads, homes=homes)
                assert any(fits(work, card, there) for card in there), (offs, lost_on, homes)


def test_what_is_lost_goes_to_another_host_and_what_leads_to_a_card_that_is_not_off() -> None:
    there = cards("aabb", (None, None, 0.06, None))
    lost = Work(3, complete({}), "sampler", lost_on=there[0])
    assert [fits(lost, card, there) for card in there] == [False, False, True, True]
    leading = Work(3, complete({}), "sampler", leads=True)
    assert [fits(leading, card, there) for card in there] == [True, True, False, True]
    both = Work(3, complete({}), "sampler", lost_on=there[0], leads=True)
    assert [fits(both, card, there) for card in there] == [False, False, False, True]


def test_what_is_compiled_goes_to_the_host_that_has_the_code_and_no_card_stands_still_for_it() -> None:
    there = cards("aab", (None, None, None))
    first, second = (Work(n, complete({}), "sampler", homes=frozenset("a")) for n in (3, 4))
    other = Work(5, complete({}), "sampler")
    waiting = Waiting([first])
    assert waiting.take(there[2], there) is None
    assert waiting.has_room(there[2], there), "another config is asked for it"
    waiting.append(other)
    assert waiting.take(there[2], there) is other
    waiting.append(second)
    assert not waiting.has_room(there[2], there), "two wait for the other host"
    assert waiting.has_room(there[0], there)
    assert waiting.take(there[2], there, anywhere=True) is first
    assert waiting.take(there[1], there) is second
