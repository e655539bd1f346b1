"""Memory: knobs for memory layout, offloading, VAE slicing and tiling."""
