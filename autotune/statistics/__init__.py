"""Statistics: paired differences, verdicts, drift, interleaved measurement, hypervolume."""
