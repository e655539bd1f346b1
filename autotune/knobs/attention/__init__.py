"""Knobs that change how attention is computed: kernel, fused projections, token merging."""
