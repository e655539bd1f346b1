"""Knobs that change number formats: dtype, TF32, quantization, casting."""
