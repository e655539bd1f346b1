"""Limits: can a pipe take what is asked of it? So many steps, so long prompts: tried, and asked of its tokenizers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from autotune.errors import UserError
from autotune.pipelines import call
from autotune.pipelines.rehearsal.facts import SHORT, workload
from autotune.pipelines.rehearsal.rehearse import rehearse

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Cut(NamedTuple):
    """A prompt that no text encoder of a pipe reads to its end: the most tokens that one reads, and the lost words."""

    prompt: str
    tokens: int
    lost: str


def check_steps(pipe: "DiffusionPipeline", steps: int) -> None:
    """Raises UserError where a call of so many steps fails before the denoiser is called, and one of few does not."""
    few = workload(pipe, SHORT, guided=False)
    fault = rehearse(pipe, few.model_copy(update={"steps": steps}), until="given").fault
    if fault is not None and rehearse(pipe, few, until="given").fault is None:
        name = type(getattr(pipe, "scheduler", pipe)).__name__
        raise UserError(f"--steps {steps} is more than {name} can take: {fault.rstrip('.')}.")


def cut_prompts(pipe: "DiffusionPipeline", prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[Cut]:
    """Those of the prompts that are cut. Where there are several text encoders, the one that reads the most decides.

    arguments  of the call, which may set max_sequence_length
    """
    longest = arguments.get("max_sequence_length", call.default(pipe, "max_sequence_length"))
    readers = [
        (tokenizer, _context(tokenizer, getattr(pipe, name.replace("tokenizer", "text_encoder"), None), longest))
        for name, tokenizer in pipe.components.items()
        if name.startswith("tokenizer") and callable(tokenizer)
    ]
    found = ([_cut(prompt, tokenizer, context) for tokenizer, context in readers] for prompt in dict.fromkeys(prompts))
    cuts = [[cut for cut in of_one if cut is not None] for of_one in found]
    return [min(of_one, key=lambda cut: len(cut.lost)) for of_one in cuts if of_one and len(of_one) == len(readers)]


def _context(tokenizer: Any, encoder: Any, longest: Any) -> float:
    """How many tokens of a prompt are read, the special ones included; inf: no limit is known."""
    config = getattr(encoder, "config", None)
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    numbers = (getattr(tokenizer, "model_max_length", None), positions, longest)
    return min((number for number in numbers if isinstance(number, int | float) and number > 0), default=float("inf"))


def _cut(prompt: str, tokenizer: Any, limit: float) -> Cut | None:
    tokens = tokenizer(prompt).input_ids
    if len(tokens) <= limit:
        return None
    context = int(limit)
    last = context - 1  # the last token read is the end's
    if not getattr(tokenizer, "is_fast", False):
        return Cut(prompt, context, tokenizer.decode(tokens[last:], skip_special_tokens=True).strip())
    begin, _ = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"][last]
    return Cut(prompt, context, prompt[begin:].strip())
