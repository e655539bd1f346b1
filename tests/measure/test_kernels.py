"""The profiler's names become the kernels' short ones."""

from autotune.measure.kernels import count_kernels


def test_kernels_are_counted_by_their_short_names() -> None:
    events = {
        "aten::_scaled_dot_product_flash_attention_for_cpu": 7,
        "aten::_scaled_dot_product_flash_attention": 1,
        "aten::_scaled_dot_product_efficient_attention": 2,
        "aten::_scaled_dot_product_cudnn_attention": 3,
        "aten::_scaled_dot_product_attention_math": 4,
        "aten::scaled_dot_product_attention": 17,
        "aten::bmm": 99,
    }
    assert count_kernels(events) == {"flash": 8, "efficient": 2, "cudnn": 3, "math": 4}


def test_attention_without_sdpa_has_no_kernels() -> None:
    assert count_kernels({"aten::bmm": 2, "aten::softmax": 1}) == {}
