"""Record: the sentence about a table that `autotune record` has written."""

from pathlib import Path

from autotune.recordings.recording import Recording


def recording_words(path: Path, recording: Recording, *, trials: int) -> str:
    """The share of the space that is in the table.

    trials  of the study; those without pictures of their own are not in the table
    """
    header, rows = recording.header, len(recording.rows)
    share = "all" if header.is_whole else "some"
    lines = [f"{path}: {rows} configs, {share} of {header.allowed_configs or 'too many to count'}"]
    if trials > rows:
        left_out = trials - rows
        lines.append(f"{left_out} trials of the study are left out: no pictures of their own (see search --no-reuse)")
    return "\n".join(lines)
