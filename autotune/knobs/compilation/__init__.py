"""Knobs of torch.compile."""
