"""Attention: knobs for its kernel, fused projections and token merging."""
