"""Precision: knobs for number formats: dtype, TF32, quantization, casting."""
