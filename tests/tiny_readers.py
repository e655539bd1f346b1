"""Tiny parts of pipelines whose text encoder looks at pictures: its processor needs the package torchvision.

By the class that names them, and by the pipeline that needs them so.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from tiny import WIDTH, clip, vae
from tiny_clips import HEADS, made
from tiny_images import LANGUAGE
from tiny_videos import transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

IMAGE, VIDEO, START, END = 98, 99, 100, 101  # the tokens that stand for pictures, after those of the letters
SEEN = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}
MARKS = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>"]
CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


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
    """A VAE of 32 pixels a cell: the call resizes its pictures to 1024 x 1024 pixels, whatever it draws."""
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
    """Its call cuts prompts for CLIP to 77 tokens, whatever the tokenizer says."""
    config = clip(transformers.CLIPTextModel).config
    config.max_position_embeddings = 77
    torch.manual_seed(5)
    return {"text_encoder": qwen_vl(), "text_encoder_2": transformers.CLIPTextModel(config).eval()}


PARTS: Mapping[str, Callable[[], Any]] = {
    "Qwen2VLProcessor": qwen_processor,
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
}

# Parts that a class needs in a form of its own.
TINY: Mapping[str, Callable[[], dict[str, Any]]] = {
    "QwenImageEditPipeline": _edit,
    "QwenImageEditPlusPipeline": _edit,
    "LongCatImagePipeline": _long_cat,
    "Kandinsky5T2IPipeline": _kandinsky,
    "Kandinsky5I2IPipeline": _kandinsky,
    "Kandinsky5T2VPipeline": _kandinsky,
    "Kandinsky5I2VPipeline": _kandinsky,
}
