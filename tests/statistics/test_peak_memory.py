"""Peak memory: what is noise is "the same", and a share is told only of a peak that is beyond the noise of 0."""

import pytest

from autotune.statistics.peak_memory import is_larger, memory_words

MIB = 2**20


@pytest.mark.parametrize(
    ("peak_mib", "baseline_mib", "said"),
    [
        (150, 100, "50% more memory"),
        (50, 100, "50% less memory"),
        (115, 100, "the same memory"),
        (85, 100, "the same memory"),
        (10_190, 10_000, "the same memory"),
        (9_700, 10_000, "3% less memory"),
        (0, 0, "the same memory"),
        (12, 0, "the same memory"),
        (0, 12, "the same memory"),
        (200, 0, "210 MB more memory"),
        (200, 10, "199 MB more memory"),
        (0, 200, "100% less memory"),
    ],
)
def test_a_change_beyond_the_noise_is_told_as_a_share_or_in_bytes(peak_mib: int, baseline_mib: int, said: str) -> None:
    assert memory_words(peak_mib * MIB, baseline_mib * MIB) == said


def test_larger_is_beyond_a_share_and_beyond_what_two_processes_differ() -> None:
    assert is_larger(10_210 * MIB, 10_000 * MIB)
    assert not is_larger(10_190 * MIB, 10_000 * MIB)
    assert not is_larger(10_900 * MIB, 10_000 * MIB, 0.1)
    assert is_larger(17 * MIB, 0)
    assert not is_larger(16 * MIB, 0)
