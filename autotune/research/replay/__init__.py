"""Replay: run searches on recorded spaces instead of a device, to compare samplers."""
