"""Replay: searches of a recorded space, at no device cost, to compare samplers."""
