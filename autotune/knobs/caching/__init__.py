"""Caching: the knob for caches of the denoiser's blocks, with one file for each method (`_methods.py` says what of)."""
