"""Denoising: knobs for the steps, the scheduler, guidance, caches and the VAE."""
