"""Knobs that change the denoising loop or its decoder: steps, scheduler, guidance, caches, VAE."""
