"""Statistics: paired differences, verdicts with intervals, drift, interleaved measurements, hypervolume."""
