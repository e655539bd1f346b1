"""Facts: the traits that rehearsed calls show. What could not be seen has its reason in `unknown`."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from autotune.pipeline import KeptOutput
from autotune.pipelines import call, parts
from autotune.pipelines.rehearsal.caches import rehearsable, reusing, sets_context, tells_calls_apart
from autotune.pipelines.rehearsal.rehearse import rehearse
from autotune.pipelines.rehearsal.schedulers import faults
from autotune.pipelines.rehearsal.watch import Seen
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SHORT, LONG = "a", "a red circle above a blue star beside a green tree " * 4  # prompts
GUIDED = 5.0  # a guidance scale that acts
SIDE = 256  # the most pixels of a side, as the size matters to no trait; a multiple of what models need

MakeWorkload = Callable[..., Workload]  # (prompt, guided=): see workload()


def facts_of(
    pipe: "DiffusionPipeline", given: Mapping[str, Any] | None = None, negative_prompt: str | None = None
) -> dict[str, Any]:
    """Fields of Traits, from calls of the pipe with empty weights: with guidance, without, and with a longer prompt.

    The first is in float16, because some pipelines then cast the VAE to float32.

    given, negative_prompt  what the user gives to the call; used where a call fails without them: some classes need
                            one of them, but can't say it
    """
    guided, memory = call.guided_above(pipe) is not None, dict[Any, Any]()
    make: MakeWorkload = functools.partial(workload, pipe)
    how: dict[str, Any] = {"memory": memory, "dtype": torch.float16}
    first = rehearse(pipe, make(SHORT, guided=guided), **how)
    if first.fault and (given or negative_prompt):
        make = functools.partial(workload, pipe, given=given, negative_prompt=negative_prompt)
        first = rehearse(pipe, make(SHORT, guided=guided), **how)
    casts = torch.float32 in first.decoded_in
    if first.fault:  # models that keep some weights in float32 can't be given float16 alone
        memory.clear()
        how["dtype"] = None
        first = rehearse(pipe, make(SHORT, guided=guided), **how)
    calls = [(first, guided)]
    if guided:
        calls.append((rehearse(pipe, make(SHORT, guided=False), **how), False))
    negative = _with_negative_prompt(pipe, make, how)
    replaced: list[bool] = []
    named: list[bool] = []
    noting: dict[str, Any] = {**how, "until": "given", "change": _noting(replaced, named)}
    longer = rehearse(pipe, make(LONG, guided=guided), **noting)
    fault = next((seen.fault for seen in (*(seen for seen, _ in calls), negative, longer) if seen.fault), None)
    return {
        "step_attention": tuple(sorted({kind for name in parts.step_models(pipe) for kind in _attention(first, name)})),
        "kept_outputs": (*_kept(calls), *_kept([(negative, guided)], negative=True)),
        "whole_graph_fault": _whole_graph_fault(pipe, first),
        "prompt_lengths_vary": bool(first.given and longer.given) and first.given[0] != longer.given[0],
        "vae_upcasts_fp16": casts,
        "sets_processors": any(replaced),
        "names_sample": any(named),
        "fuses_qkv": _fuses_qkv(pipe, make, first, memory),
        "casting_fault": _casting_fault(pipe, make, first, memory),
        "block_caches": _block_caches(pipe, make, memory),
        "sets_cache_context": sets_context(pipe)
        and all(hasattr(denoiser, "enable_cache") for denoiser in parts.denoisers(pipe).values()),
        "guidance_doubles": len(calls) > 1 and guidance_doubles(pipe, calls[0][0], calls[1][0]),
        "encodes_apart": bool(first.encodes) and all(all(seen.encodes) for seen in (first, negative, longer)),
        "vae_encodes": first.vae_encodes,
        "used_directly": tuple(sorted(first.used_directly)),
        "scheduler_faults": _scheduler_faults(pipe, make, first, how),
        "unknown": {"step_attention": f"a call without weights failed ({fault})"} if fault else {},
    }


def guidance_doubles(pipe: "DiffusionPipeline", guided: Seen, unguided: Seen) -> bool:
    """Does a guided call give the denoiser as many calls as an unguided one, with a batch of double size?

    The pipe must say whether a call is guided, as the batch alone does not. Its second half must have the prompt.
    """
    says = hasattr(type(pipe), "do_classifier_free_guidance") and not begins_with_the_prompt(type(pipe))
    if not says or len(guided.given) != len(unguided.given):
        return False
    shapes = list(zip(*(seen.given[0] if seen.given else () for seen in (guided, unguided)), strict=False))
    doubled = [len(a) > 2 and a == (2 * b[0], *b[1:]) for a, b in shapes if len(b) > 2]
    return any(doubled) and all(a in (b, (2 * b[0], *b[1:])) for a, b in shapes if b)


def begins_with_the_prompt(cls: type["DiffusionPipeline"]) -> bool:
    """Is the first half of a guided batch the one with the prompt, as in Lumina and StableCascade?

    It is read off the source, because a call without weights gives no values that would tell the halves apart.
    """
    return (
        re.search(r"cat\(\[\s*prompt_embeds\w*,\s*negative_prompt_embeds", inspect.getsource(cls.__call__)) is not None
    )


def _fuses_qkv(pipe: "DiffusionPipeline", make: MakeWorkload, plain: Seen, memory: dict[Any, Any]) -> bool:
    """Does the denoiser compute with fused projections once diffusers has fused them? On some models it does not."""
    if not hasattr(parts.denoiser(pipe), "fuse_qkv_projections"):
        return False

    def fuse(stand_in: Any) -> None:
        parts.denoiser(stand_in).fuse_qkv_projections()

    remembered = _OfOthers(memory, parts.denoiser_name(pipe))
    short = make(SHORT, guided=False)
    fused = rehearse(pipe, short, until="denoised", change=fuse, memory=remembered)
    return fused.fault is None and bool(fused.rows.keys() - plain.rows.keys())


def _casting_fault(pipe: "DiffusionPipeline", make: MakeWorkload, plain: Seen, memory: dict[Any, Any]) -> str | None:
    """Why a call fails once layers are stored in 8 bits: some models cast to the format that a layer is stored in."""
    if plain.fault or not hasattr(parts.denoiser(pipe), "enable_layerwise_casting"):
        return None

    def cast(stand_in: Any) -> None:
        for denoiser in parts.denoisers(stand_in).values():
            denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=denoiser.dtype)

    remembered = _OfOthers(memory, parts.denoiser_name(pipe))
    return rehearse(pipe, make(SHORT, guided=False), until="denoised", change=cast, memory=remembered).fault


def _block_caches(pipe: "DiffusionPipeline", make: MakeWorkload, memory: dict[Any, Any]) -> tuple[str, ...]:
    """The caches, of diffusers and cache-dit, with which a call of the pipe works and reuses blocks."""
    if not tells_calls_apart(pipe):
        return ()
    short = make(SHORT, guided=False)
    if short.steps < 2:
        return ()
    remembered = _OfOthers(memory, parts.denoiser_name(pipe))
    call = functools.partial(rehearse, pipe, short, memory=remembered)
    return tuple(name for name, switch_on in rehearsable().items() if reusing(call, switch_on))


class _OfOthers(dict[Any, Any]):
    """What models gave, but for the denoiser, which must run for what was changed in it to act."""

    def __init__(self, memory: dict[Any, Any], denoiser: str | None) -> None:
        super().__init__({key: given for key, given in memory.items() if key[0] != denoiser})
        self.denoiser = denoiser

    def __contains__(self, key: Any) -> bool:
        return key[0] != self.denoiser and super().__contains__(key)


def workload(
    pipe: "DiffusionPipeline",
    prompt: str,
    *,
    guided: bool,
    given: Mapping[str, Any] | None = None,
    negative_prompt: str | None = None,
) -> Workload:
    """A call of one small picture in few steps. `given`: arguments of the call."""
    negative = call.negative_prompt(pipe) or negative_prompt if guided else None
    scale = GUIDED if guided else call.guided_above(pipe) or 0.0  # PRX refuses less than 1
    steps = min(2, call.default(pipe, "num_inference_steps") or 2)
    size = call.default_size(pipe)
    width, height = (SIDE, SIDE) if isinstance(size, str) else (min(side, SIDE) for side in size)
    how: dict[str, Any] = {"steps": steps, "guidance_scale": scale, "negative_prompt": negative}
    how["frames"] = 2 * parts.cell_frames(pipe) + 1 if call.frames_argument(pipe) else None
    return Workload(prompts=(prompt,), width=width, height=height, call=dict(given or {}), **how)


def _attention(seen: Seen, model: str) -> set[tuple[int, bool, bool]]:
    return seen.attention.get(model, set())


def _noting(replaced: list[bool], named: list[bool]) -> Callable[[Any], None]:
    """For rehearse(): notes of each call of the denoiser how it is made.

    replaced  were other attention processors put into it before?
    named     are its arguments given by name alone?
    """

    def change(stand_in: Any) -> None:
        denoiser = parts.denoiser(stand_in)

        def processors() -> list[Any]:
            return [getattr(module, "processor", None) for module in denoiser.modules()]

        before = processors()

        def note(_: Any, args: tuple[Any, ...]) -> None:
            named.append(not args)
            replaced.append(any(a is not b for a, b in zip(before, processors(), strict=True)))

        denoiser.register_forward_pre_hook(note)

    return change


def _scheduler_faults(
    pipe: "DiffusionPipeline", make: MakeWorkload, first: Seen, how: dict[str, Any]
) -> dict[str, str]:
    """Why other schedulers can't take the steps: what a call hands to its own is tried, and a whole call."""
    if getattr(pipe, "scheduler", None) is None:
        return {}

    def tried(scheduler: Any) -> str | None:
        if first.fault:
            return None  # no call can be rehearsed

        def change(stand_in: Any) -> None:
            vars(stand_in)["scheduler"] = scheduler

        return rehearse(pipe, make(SHORT, guided=False), **how, change=change).fault

    return faults(pipe, first.timesteps, tried)


def _with_negative_prompt(pipe: "DiffusionPipeline", make: MakeWorkload, how: dict[str, Any]) -> Seen:
    """A call with a negative prompt, of a pipe that takes one beside its own guidance; else nothing is seen."""
    second = "true_cfg_scale"
    if second not in call.parameters(pipe) or call.guidance_argument(pipe) == second:
        return Seen()
    guided = make(SHORT, guided=True)
    changes = {"negative_prompt": SHORT, "call": {**guided.call, second: GUIDED}}
    return rehearse(pipe, guided.model_copy(update=changes), **how)


def _kept(calls: list[tuple[Seen, bool]], *, negative: bool = False) -> list[KeptOutput]:
    return [
        KeptOutput(model=model, after=after, by_scheduler=by_scheduler, guided=guided, negative=negative)
        for seen, guided in calls
        for model, after, by_scheduler in sorted(seen.kept)
    ]


def _whole_graph_fault(pipe: "DiffusionPipeline", seen: Seen) -> str | None:
    name = parts.denoiser_name(pipe)
    what = seen.breaks.get(str(name))
    return None if what is None else f"the forward of {type(parts.denoiser(pipe)).__name__} {what}"
