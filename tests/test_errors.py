"""The word that a user probably meant."""

import pytest

from autotune.errors import LONGEST_WORD, nearest, one_line


@pytest.mark.parametrize("word", ["dtipe", "dtyp", "dtypes"])
def test_a_word_that_is_close_is_proposed(word: str) -> None:
    assert nearest(word, ["attention", "dtype", "compile"]) == "did you mean 'dtype'?"


def test_where_nothing_is_close_everything_known_is_listed() -> None:
    assert nearest("zzz", (name for name in ("attention", "dtype"))) == "known: attention, dtype."


def test_a_message_is_one_line_that_a_terminal_can_show_whatever_was_given() -> None:
    assert one_line("there is no 'a\nb\x1b[31m\udcff\u202e'.") == "there is no 'a\\nb\\x1b[31m\\udcff\\u202e'."
    assert one_line("kein 'Bär' in 日本.") == "kein 'Bär' in 日本."
    long = one_line(f"unknown {'x' * 5000}: known: a, b.")
    assert len(long) < LONGEST_WORD + 40
    assert long.endswith("x... known: a, b.")
