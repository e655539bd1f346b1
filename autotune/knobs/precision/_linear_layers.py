"""_linear_layers: the linear layers that a quantization filter selects. A helper of the knobs of quantization."""

# The shapes (in, out) that the PyTorch team's SDXL guide does not quantize: too small to gain by it.
SDXL_LEFT_OUT = {
    (1280, 640), (1920, 1280), (1920, 640), (2048, 1280), (2048, 2560), (2560, 1280), (256, 128), (2816, 1280),
    (320, 640), (512, 1536), (512, 256), (512, 512), (640, 1280), (640, 1920), (640, 320), (640, 5120), (640, 640),
    (960, 320), (960, 640),
}  # fmt: skip


def selected(layers: str, shape: tuple[int, int]) -> bool:
    """Does the filter `layers` ("all", "min_features:N" or "sdxl") select a linear layer of this (in, out) shape?"""
    if layers == "sdxl":
        return shape[0] > 16 and shape not in SDXL_LEFT_OUT
    kind, _, least = layers.partition(":")
    return kind == "all" or min(shape) >= int(least)
