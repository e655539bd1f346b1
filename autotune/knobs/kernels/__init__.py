"""Kernels: knobs for which kernels the libraries choose, and how these add."""
