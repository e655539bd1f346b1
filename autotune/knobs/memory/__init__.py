"""Knobs that change where tensors lie and how much memory they need at once: layout, offload, VAE tiling."""
