"""tiny_of(): a tiny checkpoint of any pipeline class, its components made by the classes that its constructor names.

A new pipeline of diffusers whose components are known here needs no line. TINY has the classes whose components must
fit together in a way of their own.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import tiny_clips
import tiny_images
import tiny_readers
import tiny_videos
import torch
import transformers
from tiny import (
    FAMILIES,
    WIDTH,
    clip,
    clip_tokenizer,
    t5,
    t5_tokenizer,
    tiny_checkpoint,
    unet,
    vae,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextModel, CLIPTextModelWithProjection

CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
LANGUAGE_MODEL = {**tiny_images.LANGUAGE, "pad_token_id": 0}
ATTENTION = {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2}
QWEN_VAE = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False],
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}


def tiny_of(name: str, folder: Path, **changes: Any) -> Path:
    """Save a tiny checkpoint of this class, with the components in `changes` replaced; returns its folder."""
    if name in FAMILIES and not changes:
        return tiny_checkpoint(name, folder)
    torch.manual_seed(0)
    cls = getattr(diffusers, name)
    made = TINY.get(name, dict)() | changes
    for parameter in _parameters(cls):
        if parameter.name not in made:
            part = _part(parameter)
            if part is not None or parameter.default is parameter.empty:
                made[parameter.name] = part
    known = {parameter.name for parameter in _parameters(cls)}
    cls(**{part: value for part, value in made.items() if part in known}).save_pretrained(folder)
    return folder


def _parameters(cls: Any) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(cls.__init__).parameters.values() if p.name not in ("self", "args", "kwargs")]


def can_make(name: str) -> str | None:
    """Why there is no tiny checkpoint of this class, as a clause; None: there is one."""
    if name in FAMILIES:
        return None
    made = TINY.get(name, dict)()
    for parameter in _parameters(getattr(diffusers, name)):
        needed = parameter.default is parameter.empty and parameter.name not in (*made, *LEFT_OUT)
        if needed and not _known(parameter):
            return f"no tiny component stands for {parameter.name}: {', '.join(_class_names(parameter))}"
    return None


def _class_names(parameter: inspect.Parameter) -> list[str]:
    text = parameter.annotation if isinstance(parameter.annotation, str) else repr(parameter.annotation)
    return [word for word in re.findall(r"\w+", text) if word[0].isupper()]


def _known(parameter: inspect.Parameter) -> str | None:
    return next((word for word in _class_names(parameter) if word in COMPONENTS), None)


def _part(parameter: inspect.Parameter) -> Any:
    name = _known(parameter)
    if parameter.name == "requires_safety_checker":
        return False
    if name is None or parameter.name in LEFT_OUT:
        return None
    return COMPONENTS[name]()


def tokenizer(cls: Any = transformers.PreTrainedTokenizerFast) -> Any:
    """A tokenizer of letters that has a chat template and no limit to its context."""
    letters = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3}
    letters |= {chr(code): code - 29 for code in range(33, 127)}
    model = Tokenizer(models.BPE(vocab=letters, merges=[], unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    made = cls(tokenizer_object=model, model_max_length=4096, **special)
    made.chat_template = CHAT
    return made


def language_model(name: str, **more: Any) -> Any:
    """A model of transformers of this class, WIDTH wide."""
    cls = getattr(transformers, name)
    torch.manual_seed(5)
    return cls(cls.config_class(**LANGUAGE_MODEL | more)).eval()


def qwen_vl(name: str = "Qwen2_5_VLForConditionalGeneration") -> Any:
    cls = getattr(transformers, name)
    rope = {"type": "default", "mrope_section": [1, 1, 2], "rope_type": "default"}
    text = LANGUAGE_MODEL | {"rope_scaling": rope, "rope_parameters": rope | {"rope_theta": 1e4}}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": WIDTH}
    torch.manual_seed(5)
    return cls(cls.config_class(text_config=text, vision_config=vision)).eval()


def _transformer(name: str, **config: Any) -> Callable[[], Any]:
    def make() -> Any:
        torch.manual_seed(7)
        made = getattr(diffusers, name)(**config).eval()
        for parameter in made.parameters():
            torch.nan_to_num_(parameter.data)
            if parameter.ndim > 1 and not parameter.abs().max() < 100:  # left uninitialised by its class
                torch.nn.init.normal_(parameter.data, std=0.02)
        return made

    return make


def _flux2_vae() -> Any:
    levels = {"block_out_channels": (16, 32), "norm_num_groups": 8, "latent_channels": 4, "sample_size": 32}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return diffusers.AutoencoderKLFlux2(**levels, **kinds).eval()


def _flux2(guided: bool) -> Any:
    config = {"num_layers": 1, "num_single_layers": 1, "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 16}
    return _transformer(
        "Flux2Transformer2DModel",
        **ATTENTION | config,
        in_channels=16,
        joint_attention_dim=3 * WIDTH,
        guidance_embeds=guided,
    )()


def _dc_vae() -> Any:
    return diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.41,
    ).eval()


def _movq() -> Any:
    return diffusers.VQModel(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("AttnUpDecoderBlock2D",) * 4,
        latent_channels=4,
        vq_embed_dim=4,
        num_vq_embeddings=16,
        norm_type="spatial",
    ).eval()


def _bert() -> Any:
    config = transformers.BertConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32, vocab_size=400
    )
    return transformers.BertModel(config).eval()


def _umt5() -> Any:
    config = transformers.UMT5Config(d_model=WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=400)
    return transformers.UMT5EncoderModel(config).eval()


def _vision() -> Any:
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    return transformers.CLIPVisionModelWithProjection(config).eval()


def _controlnet_of(name: str, denoiser: str, **more: Any) -> Any:
    """The ControlNet of this class with the configuration of the tiny denoiser."""
    cls, config = getattr(diffusers, name), COMPONENTS[denoiser]().config
    taken = inspect.signature(cls.__init__).parameters
    torch.manual_seed(8)
    return cls(**{key: value for key, value in config.items() if key in taken} | more).eval()


def _mistral() -> Any:
    cls = transformers.Mistral3ForConditionalGeneration
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"model_type": "mistral", **LANGUAGE_MODEL, "num_hidden_layers": 31}
    vision |= {"model_type": "pixtral", "image_size": 32, "patch_size": 16, "head_dim": 8}
    torch.manual_seed(5)
    return cls(transformers.Mistral3Config(text_config=text, vision_config=vision)).eval()


def _flow() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler()


def _controlnet() -> Any:
    return diffusers.ControlNetModel.from_unet(unet(4), conditioning_embedding_out_channels=(8, 16))


# The class that a constructor names -> a function that makes a tiny one.
COMPONENTS: dict[str, Callable[[], Any]] = {
    "CLIPTokenizer": clip_tokenizer,
    "CLIPTextModel": lambda: clip(CLIPTextModel),
    "CLIPTextModelWithProjection": lambda: clip(CLIPTextModelWithProjection),
    "T5Tokenizer": t5_tokenizer,
    "T5TokenizerFast": t5_tokenizer,
    "T5EncoderModel": t5,
    "AutoTokenizer": tokenizer,
    "Qwen2Tokenizer": tokenizer,
    "GemmaTokenizer": tokenizer,
    "BertTokenizer": tokenizer,
    "BertModel": _bert,
    "UMT5EncoderModel": _umt5,
    "GemmaPreTrainedModel": lambda: language_model("GemmaModel"),
    "Gemma2PreTrainedModel": lambda: language_model("Gemma2Model"),
    "GlmModel": lambda: language_model("GlmModel"),
    "Qwen3Model": lambda: language_model("Qwen3Model"),
    "Qwen3ForCausalLM": lambda: language_model("Qwen3ForCausalLM", num_hidden_layers=30),
    "PreTrainedModel": lambda: language_model("Qwen3Model"),
    "Qwen2_5_VLForConditionalGeneration": qwen_vl,
    "AutoencoderKL": lambda: vae(shift_factor=0.1),
    "AutoencoderKLFlux2": _flux2_vae,
    "AutoencoderKLQwenImage": lambda: diffusers.AutoencoderKLQwenImage(**QWEN_VAE).eval(),
    "AutoencoderDC": _dc_vae,
    "VQModel": _movq,
    "UNet2DConditionModel": lambda: unet(4),
    "ControlNetModel": _controlnet,
    "KarrasDiffusionSchedulers": lambda: diffusers.DDIMScheduler(steps_offset=1),
    "DDIMScheduler": lambda: diffusers.DDIMScheduler(steps_offset=1),
    "DDPMScheduler": lambda: diffusers.DDPMScheduler(),
    "LCMScheduler": lambda: diffusers.LCMScheduler(),
    "DPMSolverMultistepScheduler": lambda: diffusers.DPMSolverMultistepScheduler(),
    "CogVideoXDDIMScheduler": lambda: diffusers.CogVideoXDDIMScheduler(),
    "FlowMatchEulerDiscreteScheduler": _flow,
    "FluxTransformer2DModel": lambda: FAMILIES["FluxPipeline"]()["transformer"],
    "SD3Transformer2DModel": lambda: FAMILIES["StableDiffusion3Pipeline"]()["transformer"],
    "PixArtTransformer2DModel": lambda: FAMILIES["PixArtSigmaPipeline"]()["transformer"],
    "Flux2Transformer2DModel": lambda: _flux2(True),
    "ZImageTransformer2DModel": _transformer(
        "ZImageTransformer2DModel",
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 4, 8],
        axes_lens=[512, 64, 64],
    ),
    "QwenImageTransformer2DModel": _transformer(
        "QwenImageTransformer2DModel",
        **ATTENTION,
        in_channels=16,
        out_channels=4,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    ),
    "SanaTransformer2DModel": _transformer(
        "SanaTransformer2DModel",
        **ATTENTION,
        in_channels=4,
        out_channels=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        sample_size=16,
    ),
    "ChromaTransformer2DModel": _transformer(
        "ChromaTransformer2DModel",
        **ATTENTION | {"num_layers": 1},
        in_channels=16,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    ),
    "Lumina2Transformer2DModel": _transformer(
        "Lumina2Transformer2DModel",
        sample_size=16,
        in_channels=4,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 4, 8),
        axes_lens=(512, 64, 64),
        cap_feat_dim=WIDTH,
    ),
    "AuraFlowTransformer2DModel": _transformer(
        "AuraFlowTransformer2DModel",
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=1024,
    ),
    "CogView3PlusTransformer2DModel": _transformer(
        "CogView3PlusTransformer2DModel",
        **ATTENTION,
        in_channels=4,
        out_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=4,
        pos_embed_max_size=32,
        sample_size=16,
    ),
    "CogView4Transformer2DModel": _transformer(
        "CogView4Transformer2DModel",
        **ATTENTION,
        in_channels=4,
        out_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=4,
        pos_embed_max_size=32,
        sample_size=16,
        rope_axes_dim=(32, 32),
    ),
    "HunyuanDiT2DModel": _transformer(
        "HunyuanDiT2DModel",
        **ATTENTION,
        in_channels=4,
        patch_size=2,
        sample_size=16,
        hidden_size=32,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        text_len=77,
        text_len_t5=256,
        use_style_cond_and_image_meta_size=False,
    ),
    "OvisImageTransformer2DModel": _transformer(
        "OvisImageTransformer2DModel",
        **ATTENTION | {"num_layers": 1},
        in_channels=16,
        out_channels=16,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    ),
    "BriaTransformer2DModel": _transformer(
        "BriaTransformer2DModel",
        **ATTENTION | {"num_layers": 1},
        in_channels=16,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=[0, 4, 12],
    ),
    "PRXTransformer2DModel": _transformer(
        "PRXTransformer2DModel",
        in_channels=4,
        context_in_dim=WIDTH,
        hidden_size=32,
        num_heads=2,
        depth=2,
        axes_dim=[8, 8],
    ),
    "T5GemmaEncoder": lambda: language_model("Gemma2Model"),
    "LuminaNextDiT2DModel": _transformer(
        "LuminaNextDiT2DModel",
        sample_size=16,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=WIDTH,
    ),
    "ErnieImageTransformer2DModel": _transformer(
        "ErnieImageTransformer2DModel",
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=64,
        in_channels=16,
        out_channels=16,
        text_in_dim=WIDTH,
        rope_axes_dim=(4, 4, 8),
    ),
    "AutoModel": lambda: language_model("Qwen3Model"),
    "PriorTransformer": _transformer(
        "PriorTransformer",
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=24,
    ),
    "CLIPVisionModelWithProjection": lambda: _vision(),
    "CLIPImageProcessorPil": lambda: transformers.CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ),
    "UnCLIPScheduler": lambda: diffusers.UnCLIPScheduler(prediction_type="sample"),
    "EulerDiscreteScheduler": lambda: diffusers.EulerDiscreteScheduler(),
    "FluxControlNetModel": lambda: _controlnet_of("FluxControlNetModel", "FluxTransformer2DModel"),
    "SD3ControlNetModel": lambda: _controlnet_of("SD3ControlNetModel", "SD3Transformer2DModel"),
    "QwenImageControlNetModel": lambda: _controlnet_of("QwenImageControlNetModel", "QwenImageTransformer2DModel"),
    "SanaControlNetModel": lambda: _controlnet_of("SanaControlNetModel", "SanaTransformer2DModel"),
    "HunyuanDiT2DControlNetModel": lambda: _controlnet_of("HunyuanDiT2DControlNetModel", "HunyuanDiT2DModel"),
    "Kandinsky5Transformer3DModel": _transformer(
        "Kandinsky5Transformer3DModel",
        in_text_dim=WIDTH,
        in_text_dim2=WIDTH,
        time_dim=16,
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 4, 8),
    ),
    "Mistral3ForConditionalGeneration": lambda: _mistral(),
    "Kandinsky3UNet": _transformer(
        "Kandinsky3UNet",
        time_embedding_dim=16,
        groups=8,
        attention_head_dim=8,
        layers_per_block=2,
        block_out_channels=(32, 64),
        cross_attention_dim=16,
        encoder_hid_dim=WIDTH,
    ),
}
COMPONENTS |= tiny_videos.PARTS | tiny_clips.PARTS | tiny_images.PARTS | tiny_readers.PARTS
COMPONENTS |= {"CLIPImageProcessor": COMPONENTS["CLIPImageProcessorPil"]}  # its name where torchvision is installed
COMPONENTS |= {"LlamaModel": lambda: language_model("LlamaModel")}
COMPONENTS |= {"LlamaTokenizer": tokenizer, "LlamaTokenizerFast": tokenizer, "PreTrainedTokenizerBase": tokenizer}
COMPONENTS |= {"TokenizersBackend": tokenizer, "SchedulerMixin": _flow}
COMPONENTS |= {"T5Gemma2Encoder": lambda: language_model("Gemma2Model")}
COMPONENTS |= {"Qwen2VLForConditionalGeneration": lambda: qwen_vl("Qwen2VLForConditionalGeneration")}
LEFT_OUT = ("transformer_2", "safety_checker", "feature_extractor", "image_encoder", "watermarker")


def _distilled_klein() -> dict[str, Any]:
    return {"transformer": _flux2(False), "is_distilled": True}


def _sprint() -> dict[str, Any]:
    transformer = _transformer(
        "SanaTransformer2DModel",
        **ATTENTION,
        in_channels=4,
        out_channels=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        sample_size=16,
        guidance_embeds=True,
        qk_norm="rms_norm_across_heads",
    )()
    return {"transformer": transformer, "scheduler": diffusers.SCMScheduler()}


def _lcm() -> dict[str, Any]:
    return {"unet": unet(4, time_cond_proj_dim=16), "requires_safety_checker": False}


def _xl_controlled() -> dict[str, Any]:
    made = FAMILIES["StableDiffusionXLPipeline"]()
    return made | {
        "controlnet": diffusers.ControlNetModel.from_unet(made["unet"], conditioning_embedding_out_channels=(8, 16))
    }


def _flux_with(channels: int) -> dict[str, Any]:
    """FLUX whose transformer takes this many channels: control and fill add those of their pictures."""
    made = FAMILIES["FluxPipeline"]()
    return made | {"transformer": _changed(made["transformer"], in_channels=channels, out_channels=16)}


def _changed(model: Any, **changes: Any) -> Any:
    """A model of the same class whose configuration differs in these entries."""
    config = {key: value for key, value in model.config.items() if not key.startswith("_")}
    torch.manual_seed(9)
    return type(model)(**config | changes).eval()


def _sd3_inpaint() -> dict[str, Any]:
    made = FAMILIES["StableDiffusion3Pipeline"]()
    transformer = _changed(made["transformer"], in_channels=16, out_channels=16)
    return made | {"transformer": transformer, "vae": _changed(made["vae"], latent_channels=16)}


def _sd3_controlled(masks: int = 0) -> dict[str, Any]:
    made, other = FAMILIES["StableDiffusion3Pipeline"](), FAMILIES["StableDiffusion3Pipeline"]()["transformer"]
    # from_transformer() writes into the configuration of the transformer that it is given
    control = diffusers.SD3ControlNetModel.from_transformer(other, num_layers=1, num_extra_conditioning_channels=masks)
    return made | {"controlnet": control}


def _cogview_control() -> dict[str, Any]:
    return {"transformer": _changed(COMPONENTS["CogView4Transformer2DModel"](), in_channels=8)}


def _hunyuan_dit_controlled() -> dict[str, Any]:
    """Its ControlNet adds to the skip connections, of which six layers have two."""
    transformer = _changed(COMPONENTS["HunyuanDiT2DModel"](), num_layers=6)
    controlnet = _controlnet_of("HunyuanDiT2DControlNetModel", "HunyuanDiT2DModel", transformer_num_layers=6)
    return {**_deep_vae(), "transformer": transformer, "controlnet": controlnet}


def _xl_pix2pix() -> dict[str, Any]:
    made = FAMILIES["StableDiffusionXLPipeline"]()
    return made | {"unet": _changed(made["unet"], in_channels=8)}


def _kandinsky_2_2(channels: int = 4) -> dict[str, Any]:
    image = {"encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "image_proj", "addition_embed_type": "image"}
    return {"unet": unet(channels, out_channels=8, **image)}


def _deep_vae() -> dict[str, Any]:
    """A VAE of four levels, for pipelines that take its 8 pixels a cell for granted."""
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return {"vae": vae(block_out_channels=(8, 8, 16, 16), shift_factor=0.1, **levels)}


def _hunyuan_video() -> dict[str, Any]:
    """Its call cuts prompts for CLIP to 77 tokens, whatever the tokenizer says."""
    config = clip(CLIPTextModel).config
    config.max_position_embeddings = 77
    torch.manual_seed(5)
    return {"text_encoder_2": CLIPTextModel(config).eval()}


# Parts that a class needs in a form of its own.
TINY: dict[str, Callable[[], dict[str, Any]]] = {
    "HunyuanVideoPipeline": _hunyuan_video,
    "Flux2KleinPipeline": _distilled_klein,
    "SanaSprintPipeline": _sprint,
    "SanaSprintImg2ImgPipeline": _sprint,
    "LatentConsistencyModelPipeline": _lcm,
    "LatentConsistencyModelImg2ImgPipeline": _lcm,
    "FluxControlPipeline": lambda: _flux_with(32),
    "FluxControlImg2ImgPipeline": lambda: _flux_with(32),
    "FluxControlInpaintPipeline": lambda: _flux_with(32),
    "FluxFillPipeline": lambda: _flux_with(48),
    "Lumina2Pipeline": _deep_vae,
    "LuminaPipeline": _deep_vae,
    "StableDiffusion3PAGPipeline": lambda: FAMILIES["StableDiffusion3Pipeline"](),
    "StableDiffusion3Img2ImgPipeline": lambda: FAMILIES["StableDiffusion3Pipeline"](),
    "StableDiffusion3InpaintPipeline": _sd3_inpaint,
    "StableDiffusion3ControlNetPipeline": _sd3_controlled,
    "StableDiffusion3ControlNetInpaintingPipeline": lambda: _sd3_controlled(1),
    "CogView4ControlPipeline": _cogview_control,
    "HunyuanDiTPipeline": _deep_vae,
    "HunyuanDiTPAGPipeline": _deep_vae,
    "HunyuanDiTControlNetPipeline": _hunyuan_dit_controlled,
    "QwenImageControlNetInpaintPipeline": lambda: {
        "controlnet": _controlnet_of(
            "QwenImageControlNetModel", "QwenImageTransformer2DModel", extra_condition_channels=4
        )
    },
    "KandinskyV22CombinedPipeline": _kandinsky_2_2,
    "KandinskyV22Img2ImgCombinedPipeline": _kandinsky_2_2,
    "KandinskyV22InpaintCombinedPipeline": lambda: _kandinsky_2_2(9),
    "IFImg2ImgPipeline": FAMILIES["IFPipeline"],
    "IFInpaintingPipeline": FAMILIES["IFPipeline"],
    "StableDiffusionInstructPix2PixPipeline": lambda: {"unet": unet(8)},
    "StableDiffusionXLInstructPix2PixPipeline": lambda: _xl_pix2pix(),
    "StableDiffusion3PAGImg2ImgPipeline": lambda: FAMILIES["StableDiffusion3Pipeline"](),
    **tiny_clips.TINY,
    **tiny_images.TINY,
    **tiny_readers.TINY,
    "HunyuanSkyreelsImageToVideoPipeline": lambda: _hunyuan_video() | tiny_clips.hunyuan_skyreels(),
}
for _name in ("", "PAG", "Img2Img", "PAGImg2Img", "Inpaint", "PAGInpaint"):
    _prefix = f"StableDiffusionXL{_name}Pipeline"
    if hasattr(diffusers, _prefix) and _prefix not in FAMILIES:
        TINY[_prefix] = FAMILIES["StableDiffusionXLPipeline"]
for _name in ("", "PAG", "Img2Img", "Inpaint", "PAGImg2Img"):
    TINY[f"StableDiffusionXLControlNet{_name}Pipeline"] = lambda: _xl_controlled()
