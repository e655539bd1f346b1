"""Compilation: knobs of torch.compile."""
