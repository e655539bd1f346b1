"""Train: makes the demo's weights from nothing. Trains a VAE, a CLIP and a UNet on captioned shapes, on a CPU.

    python -m autotune.demo.train OUT

writes OUT/pipeline and OUT/clip, with the layout of the two folders beside this file. There are three stages: the VAE
learns to encode and decode pictures; the CLIP is trained, and its text tower becomes the pipeline's text encoder; the
UNet, which needs both, learns to remove noise from the latents, given the text.

A stage ends after a time, not after a number of steps, so that the training takes the same time on any machine. A seed
therefore fixes the pictures and the first weights, but two runs do not give the same final weights. The quality of the
shipped weights is checked by tests/demo/test_weights.py.
"""

import argparse
import copy
import errno
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPTokenizer

from autotune.demo import shapes

CONTEXT: Final = 24
"""The length in tokens to which a caption is padded, with the start and end tokens."""

START, END = "<|startoftext|>", "<|endoftext|>"

CHUNK: Final = 100
"""Pictures or captions that are encoded at a time, outside of training."""

NO_CAPTION_SHARE: Final = 0.1
"""Share of the UNet's training pictures without a caption, which classifier-free guidance needs."""

MIN_SNR: Final = 5.0
"""Timesteps with a higher signal-to-noise ratio have less weight (min-SNR weighting, arXiv 2303.09556)."""

NOISE: Final = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}


@dataclass(frozen=True, slots=True)
class Data:
    """The training set. A caption is identified by its row in `tokens`; row 0 is the empty caption."""

    pictures: torch.Tensor
    """[pictures, 3, 64, 64], uint8."""
    captions: torch.Tensor
    """[pictures], int64: each picture's row in `tokens`."""
    tokens: torch.Tensor
    """[1 + scenes, CONTEXT], int64: the tokens of every caption."""

    def sample(self, count: int) -> torch.Tensor:
        """[count], int64: the positions of random pictures, drawn with replacement."""
        return torch.randint(0, len(self.pictures), (count,))

    def pixels(self, which: torch.Tensor) -> torch.Tensor:
        """[len(which), 3, 64, 64], float32, -1 to 1."""
        return self.pictures[which].float() / 127.5 - 1


def make_data(count: int, seed: int, tokenizer: CLIPTokenizer) -> Data:
    """Draw `count` pictures and look up their captions."""
    pictures, captions = shapes.dataset(count, seed)
    every = ["", *(scene.caption for scene in shapes.all_scenes())]
    row = {caption: i for i, caption in enumerate(every)}
    tokens = tokenizer(every, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    return Data(
        pictures=torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(),
        captions=torch.tensor([row[caption] for caption in captions]),
        tokens=tokens.input_ids,
    )


def new_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer whose merges build each word of the captions letter by letter from its start.

    Words are merged in alphabetical order. A later word stays in pieces where merges of an earlier word match its
    letters. This happens to "triangle" alone, which has 7 tokens, so a caption has 13 or 19 tokens.
    """
    words = sorted({word for scene in shapes.all_scenes() for word in scene.caption.split()})
    letters = sorted(set("".join(words)))
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        built = parts[0]
        for part in parts[1:]:
            merges.append((built, part))
            built += part
            vocabulary.append(built)
    ids = {token: i for i, token in enumerate(dict.fromkeys([*vocabulary, START, END]))}
    return CLIPTokenizer(ids, list(dict.fromkeys(merges)), pad_token=END, model_max_length=CONTEXT)


def fit(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], *, seconds: float, rate: float, name: str
) -> torch.nn.Module:
    """Train `model` in place for `seconds` (at least one step) and return it with a running average of its weights.

    loss  draws its own batch and returns a scalar
    rate  AdamW's learning rate. It is multiplied by two factors: one grows to 1 over the first 100 steps, the other
          falls from 1 to 0.02 over the time
    name  of the model, in messages
    """
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    average = copy.deepcopy(model)
    start, spent, step = time.monotonic(), 0.0, 0
    while spent < seconds:
        step += 1
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / 100) * (0.02 + 0.98 * (1 - spent / seconds))
        value = loss()
        if not math.isfinite(value.item()):
            raise RuntimeError(f"{name}: the loss became {value.item()} at step {step}; try another --seed")
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _follow(average, model, 1 - min(0.999, (step + 1) / (step + 10)))
        if step == 1 or step % 100 == 0:
            print(f"{name}: step {step}, {spent:.0f} of {seconds:.0f} s, loss {value.item():.4f}", flush=True)
        spent = time.monotonic() - start
    return average.eval()


def _follow(average: torch.nn.Module, model: torch.nn.Module, share: float) -> None:
    """Move each weight of `average` towards that of `model`, by `share` of their difference."""
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, share)


def _bf16() -> torch.autocast:
    """bfloat16 for matrix products and convolutions, as the shipped weights were trained."""
    return torch.autocast("cpu", torch.bfloat16)


def new_vae() -> AutoencoderKL:
    """0.7 million parameters: pictures [n, 3, 64, 64] to latents [n, 4, 16, 16] and back."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=shapes.SIDE,
    )
    return vae.to(memory_format=torch.channels_last)


def vae_loss(vae: AutoencoderKL, data: Data, *, batch: int = 24) -> torch.Tensor:
    """Scalar: the L1 and squared errors of the decoded pictures, plus 0.0001 x the KL divergence of the latents."""
    pixels = data.pixels(data.sample(batch)).contiguous(memory_format=torch.channels_last)
    with _bf16():
        latents = vae.encode(pixels).latent_dist
        decoded = vae.decode(latents.sample()).sample.float()
    mean, variance, log_variance = latents.mean.float(), latents.var.float(), latents.logvar.float()
    divergence = (mean**2 + variance - 1 - log_variance).mean()
    return F.l1_loss(decoded, pixels) + F.mse_loss(decoded, pixels) + 1e-4 * divergence


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """1.0 million parameters: captions [n, CONTEXT] and pictures [n, 3, 64, 64] to vectors [n, 64]."""
    tower = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "projection_dim": 64}
    text = {
        **tower,
        "num_hidden_layers": 3,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {**tower, "num_hidden_layers": 4, "image_size": shapes.SIDE, "patch_size": 8}
    return CLIPModel(CLIPConfig(projection_dim=64, text_config=text, vision_config=vision))


def clip_loss(clip: CLIPModel, data: Data, *, batch: int = 192) -> torch.Tensor:
    """Scalar: the cross-entropy of finding each picture's caption, and each caption's picture, in the batch.

    The target of a caption that occurs several times is split evenly among its pictures.
    """
    which = data.sample(batch)
    captions = data.captions[which]
    with _bf16():
        out = clip(input_ids=data.tokens[captions], pixel_values=data.pixels(which))
    logits = out.logits_per_image.float()
    same = (captions[:, None] == captions[None]).float()
    target = same / same.sum(1, keepdim=True)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)


def latents_of(vae: AutoencoderKL, data: Data) -> torch.Tensor:
    """[pictures, 4, 16, 16], float32: latents of standard deviation 1. The scale is set in the VAE's config."""
    with torch.no_grad(), _bf16():
        parts = torch.arange(len(data.pictures)).split(CHUNK)
        latents = torch.cat([vae.encode(data.pixels(part)).latent_dist.mode().float() for part in parts])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return latents / latents.std()


def states_of(clip: CLIPModel, data: Data) -> torch.Tensor:
    """[1 + scenes, CONTEXT, 128], float32: the text tower's last hidden states of every caption."""
    with torch.no_grad():
        return torch.cat([clip.text_model(part).last_hidden_state for part in data.tokens.split(CHUNK)])


def new_unet() -> UNet2DConditionModel:
    """4.3 million parameters: noisy latents [n, 4, 16, 16] and text [n, CONTEXT, 128] to the noise."""
    return UNet2DConditionModel(
        sample_size=shapes.SIDE // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def unet_loss(
    unet: UNet2DConditionModel, data: Data, latents: torch.Tensor, states: torch.Tensor, *, batch: int = 40
) -> torch.Tensor:
    """Scalar: the weighted squared error of the predicted noise at random timesteps.

    latents  of `latents_of`
    states   of `states_of`
    """
    schedule = DDPMScheduler(**NOISE)
    which = data.sample(batch)
    captions = data.captions[which].masked_fill(torch.rand(batch) < NO_CAPTION_SHARE, 0)
    noise = torch.randn_like(latents[which])
    timesteps = torch.randint(0, schedule.config.num_train_timesteps, (batch,))
    with _bf16():
        noisy = schedule.add_noise(latents[which], noise, timesteps)
        predicted = unet(noisy, timesteps, states[captions]).sample.float()
    kept = schedule.alphas_cumprod[timesteps]
    ratio = kept / (1 - kept)
    weight = ratio.clamp(max=MIN_SNR) / ratio
    return (weight * ((predicted - noise) ** 2).mean((1, 2, 3))).mean()


def text_encoder_of(clip: CLIPModel) -> CLIPTextModel:
    """A copy of the CLIP's text tower as a model of its own."""
    encoder = CLIPTextModel(clip.config.text_config)
    weights = clip.text_model.state_dict()
    encoder.load_state_dict({key: weights[key.removeprefix("text_model.")] for key in encoder.state_dict()})
    return encoder.eval()


def save(
    out: Path, *, vae: AutoencoderKL, clip: CLIPModel, unet: UNet2DConditionModel, tokenizer: CLIPTokenizer
) -> None:
    """Write out/pipeline and out/clip in fp16. Converts the models to fp16 in place."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder_of(clip),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(out / "pipeline")
    clip.half().save_pretrained(out / "clip")
    tokenizer.save_pretrained(out / "clip")
    new_processor().save_pretrained(out / "clip")


def new_processor() -> CLIPImageProcessorPil:
    """The processor that turns a picture into the CLIP's input: [3, 64, 64], -1 to 1."""
    half, size = [0.5] * 3, {"height": shapes.SIDE, "width": shapes.SIDE}
    return CLIPImageProcessorPil(size=size, do_center_crop=False, image_mean=half, image_std=half)


def train(out: Path, *, vae_s: float, clip_s: float, unet_s: float, pictures: int, seed: int) -> None:
    """Train everything and write it to the folder `out`. The arguments `_s` are the seconds of each stage."""
    torch.manual_seed(seed)
    tokenizer = new_tokenizer()
    data = make_data(pictures, seed, tokenizer)

    vae, clip, unet = new_vae(), new_clip(tokenizer), new_unet()
    vae = fit(vae, functools.partial(vae_loss, vae, data), seconds=vae_s, rate=2e-3, name="vae")
    clip = fit(clip, functools.partial(clip_loss, clip, data), seconds=clip_s, rate=1e-3, name="clip")
    noise_loss = functools.partial(unet_loss, unet, data, latents_of(vae, data), states_of(clip, data))
    unet = fit(unet, noise_loss, seconds=unet_s, rate=8e-4, name="unet")

    save(out, vae=vae, clip=clip, unet=unet, tokenizer=tokenizer)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"wants a number of seconds above 0, not {text!r}")
    return value


def _whole(text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"wants a whole number, {least} or more, not {text!r}")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """An argument parser that answers a bad argument with one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog="python -m autotune.demo.train",
        description="Train the demo pipeline and its CLIP model from scratch, on the CPU.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("out", metavar="OUT", type=Path, help="new folder for pipeline/ and clip/")
    for name, seconds in (("vae", 400.0), ("clip", 900.0), ("unet", 2500.0)):
        text = f"seconds to train the {name} for"
        made.add_argument(f"--{name}-s", metavar="S", type=_seconds, default=seconds, help=text)
    for name, default, least, text in (
        ("--pictures", 20_000, 2, "the number of training pictures"),
        ("--seed", 0, 0, "the seed of the pictures and of the first weights"),
    ):
        kind = functools.partial(_whole, least=least)
        made.add_argument(name, metavar="N", type=kind, default=default, help=text)
    return made


def _claim(out: Path) -> None:
    """Make the folder before the training, which takes an hour. Raises OSError if it holds files or can't be made."""
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(errno.EEXIST, "it already holds files; name a new folder")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    line = parser()
    args = line.parse_args(argv)
    try:
        _claim(args.out)
    except OSError as error:
        line.error(f"cannot write to {str(args.out)!r}: {error.strerror}")
    train(
        args.out,
        vae_s=args.vae_s,
        clip_s=args.clip_s,
        unet_s=args.unet_s,
        pictures=args.pictures,
        seed=args.seed,
    )
    print(f"wrote {args.out / 'pipeline'} and {args.out / 'clip'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
