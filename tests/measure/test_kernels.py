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


def test_in_replayed_cuda_graphs_the_gpus_own_kernels_tell() -> None:
    events = {
        "cudaGraphLaunch": 2,
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4> >": 20,
        "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)": 3,
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_f16_knob_7_64x128x64": 5,
    }
    assert count_kernels(events) == {"flash": 20, "efficient": 3, "cudnn": 5}


def test_where_operators_are_seen_their_kernels_are_not_counted_twice() -> None:
    events = {"aten::_scaled_dot_product_flash_attention": 4, "void pytorch_flash::flash_fwd_kernel<>": 4}
    assert count_kernels(events) == {"flash": 4}


def test_kernels_of_other_packages_are_told_from_torchs_own() -> None:
    assert count_kernels({"flash_attn::_flash_attn_forward": 4}) == {"flash_attn": 4}
    assert count_kernels({"xformers::efficient_attention_forward_cutlass": 3}) == {"xformers": 3}
    assert count_kernels({"FlexAttentionAutogradOp": 2}) == {"flex": 2}
    assert count_kernels({"triton_tem_fused_flex_attention_0": 2}) == {"flex": 2}
    assert count_kernels({"void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64> >": 5}) == {"flash_attn": 5}
    assert count_kernels({"void pytorch_flash::flash_fwd_kernel<>": 1, "sageattn_qk_int8": 2}) == {
        "flash": 1,
        "sage": 2,
    }
