"""Tiny parts of pipelines whose text encoder looks at pictures: its processor needs the package torchvision.

By the class that names them, and by the pipeline that needs them so.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from tiny import WIDTH, vae
from tiny_clips import HEADS, made
from tiny_images import LANGUAGE
from tiny_videos import transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

IMAGE, VIDEO, START, END = 98, 99, 100, 101  # the tokens that stand for pictures, after those of the letters
SEEN = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}
MARKS = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>"]
CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
AREA = 1024  # some calls resize what they see to 1024 x 1024 pixels, so that a VAE of few levels would make many tokens


def tokenizer() -> Any:
    """A tokenizer of letters that knows the marks of pictures."""
    letters = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3}
    letters |= {chr(code): code - 29 for code in range(33, 127)}
    model = Tokenizer(models.BPE(vocab=letters, merges=[], unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    read = transformers.PreTrainedTokenizerFast(tokenizer_object=model, model_max_length=4096, **special)
    read.add_special_tokens({"additional_special_tokens": MARKS})
    read.chat_template = CHAT
    return read


def qwen_processor() -> Any:
    readers = transformers.Qwen2VLImageProcessor(), tokenizer(), transformers.Qwen2VLVideoProcessor()
    return transformers.Qwen2VLProcessor(*readers, chat_template=CHAT)


def qwen_3_processor() -> Any:
    small = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 1024, "longest_edge": 65536}}
    readers = transformers.Qwen2VLImageProcessor(**small), tokenizer(), transformers.Qwen3VLVideoProcessor()
    return transformers.Qwen3VLProcessor(*readers, chat_template=CHAT)


def pixtral_processor() -> Any:
    read = transformers.PixtralImageProcessor()
    return transformers.PixtralProcessor(read, tokenizer(), chat_template=CHAT, image_token="<|image_pad|>")


def qwen_vl() -> Any:
    cls = transformers.Qwen2_5_VLForConditionalGeneration
    rope = {"type": "default", "mrope_section": [1, 1, 2], "rope_type": "default"}
    text = LANGUAGE | {"rope_scaling": rope, "rope_parameters": rope | {"rope_theta": 1e4}, "pad_token_id": 0}
    eye = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": WIDTH}
    torch.manual_seed(5)
    return cls(cls.config_class(text_config=text, vision_config=eye | {"fullatt_block_indexes": [0]}, **SEEN)).eval()


def _deep_qwen_vae() -> Any:
    """A VAE of 32 pixels a cell."""
    levels = {"dim_mult": [1] * 6, "temperal_downsample": [False] * 5, "num_res_blocks": 1}
    return made("AutoencoderKLQwenImage", base_dim=4, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **levels)


def _deep_vae() -> Any:
    down, up = ("DownEncoderBlock2D",) * 6, ("UpDecoderBlock2D",) * 6
    channels = {"block_out_channels": (8,) * 6, "shift_factor": 0.1, "norm_num_groups": 2}
    return vae(**channels, down_block_types=down, up_block_types=up)


def _edit() -> dict[str, Any]:
    return {"text_encoder": qwen_vl(), "vae": _deep_qwen_vae(), "tokenizer": tokenizer()}


def _long_cat() -> dict[str, Any]:
    return {"text_encoder": qwen_vl(), "tokenizer": tokenizer(), "vae": _deep_vae()}


def _kandinsky() -> dict[str, Any]:
    return {"text_encoder": qwen_vl()}


PARTS: Mapping[str, Callable[[], Any]] = {
    "Qwen2VLProcessor": qwen_processor,
    "Qwen3VLProcessor": qwen_3_processor,
    "AutoProcessor": pixtral_processor,
    "LongCatImageTransformer2DModel": lambda: transformer(
        "LongCatImageTransformer2DModel",
        **HEADS,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    ),
    "NucleusMoEImageTransformer2DModel": lambda: transformer(
        "NucleusMoEImageTransformer2DModel",
        **HEADS,
        in_channels=16,
        out_channels=4,
        num_layers=5,
        num_key_value_heads=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        num_experts=4,
        moe_intermediate_dim=16,
        capacity_factors=[2.0] * 5,
    ),
    "AutoencoderTiny": lambda: made(
        "AutoencoderTiny",
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ),
    "DreamLiteUNetModel": lambda: transformer(
        "DreamLiteUNetModel",
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
        attention_head_dim=16,
        transformer_layers_per_block=1,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
    ),
    "JoyImageEditTransformer3DModel": lambda: transformer(
        "JoyImageEditTransformer3DModel",
        in_channels=4,
        hidden_size=32,
        num_attention_heads=2,
        text_dim=WIDTH,
        num_layers=1,
        rope_dim_list=[4, 6, 6],
    ),
    "OmniGenTransformer2DModel": lambda: transformer(
        "OmniGenTransformer2DModel",
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        num_layers=1,
        pad_token_id=0,
        vocab_size=400,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        rope_scaling={"long_factor": [1.0] * 8, "short_factor": [1.0] * 8, "type": "su"},
        pos_embed_max_size=64,
        time_step_dim=16,
    ),
    "BriaFibo2Transformer2DModel": lambda: transformer(
        "BriaFibo2Transformer2DModel",
        in_channels=4,
        dim=32,
        n_layers=4,
        n_refiner_layers=1,
        n_heads=2,
        cap_feat_dim=3 * WIDTH,
        injection_layer_ids=(1, 2),
        perceiver_num_layers=1,
        min_num_gist_tokens=16,
        max_num_gist_tokens=32,
        gist_step=8,
        gist_min_text_len=16,
        gist_max_text_len=64,
        axes_dims=(4, 6, 6),
    ),
}

# Parts that a class needs in a form of its own.
TINY: Mapping[str, Callable[[], dict[str, Any]]] = {
    "QwenImageEditPipeline": _edit,
    "QwenImageEditPlusPipeline": _edit,
    "QwenImageEditInpaintPipeline": _edit,
    "QwenImageLayeredPipeline": _edit,
    "LongCatImagePipeline": _long_cat,
    "LongCatImageEditPipeline": _long_cat,
    "Kandinsky5T2IPipeline": _kandinsky,
    "Kandinsky5I2IPipeline": _kandinsky,
    "Kandinsky5T2VPipeline": _kandinsky,
    "Kandinsky5I2VPipeline": _kandinsky,
}
