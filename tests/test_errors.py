"""The word that a user probably meant."""

import pytest

from autotune.errors import nearest


@pytest.mark.parametrize("word", ["dtipe", "dtyp", "dtypes"])
def test_a_word_that_is_close_is_proposed(word: str) -> None:
    assert nearest(word, ["attention", "dtype", "compile"]) == "did you mean 'dtype'?"


def test_where_nothing_is_close_everything_known_is_listed() -> None:
    assert nearest("zzz", (name for name in ("attention", "dtype"))) == "known: attention, dtype."
