"""Peak memory: which of two peaks is larger beyond the noise, and how people read the change."""

SAME_MEMORY = 0.02  # peaks that differ by no more than this share are the same: two runs of a config differ as much
SAME_BYTES = 16 * 2**20  # peaks that differ by no more are the same: two processes of a config differ by some MiB


def is_larger(peak_bytes: float, other_bytes: float, share: float = SAME_MEMORY) -> bool:
    """Is the first peak larger than the other by more than this share of it, and by more than two processes differ?"""
    return peak_bytes - other_bytes > max(SAME_BYTES, share * other_bytes)


def memory_words(peak_bytes: float, baseline_bytes: float) -> str:
    """The change of the peak: "12% less memory".

    In bytes where the baseline's peak is within the noise of 0, as a tiny pipeline's on a CPU may be: a share of such a
    peak tells nothing.
    """
    if not is_larger(peak_bytes, baseline_bytes) and not is_larger(baseline_bytes, peak_bytes):
        return "the same memory"
    change = peak_bytes - baseline_bytes
    size = f"{change / 1e6:.0f} MB" if baseline_bytes <= SAME_BYTES else f"{abs(change) / baseline_bytes:.0%}"
    return f"{size} {'more' if change > 0 else 'less'} memory"
