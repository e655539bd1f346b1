"""Call: how a live pipe's call takes prompt, size, steps and guidance, asked of its signature and tried on the pipe."""

import inspect
import sys
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError, nearest
from autotune.pipelines import parts
from autotune.workload import CALL_OPTIONS, Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# The arguments that set how strongly the prompt guides, the usual one first.
GUIDANCE = ("guidance_scale", "true_cfg_scale", "distilled_guidance_scale", "prior_guidance_scale")
SCHEDULE = "guidance_schedule"  # the argument for a scale of each step
# A call without a negative prompt is not guided by `true_cfg_scale`. This one is what the model cards pass (QwenImage).
BLANK = " "
CONTROL_SCALE = "controlnet_conditioning_scale"  # the argument for the weights of ControlNets
# How the size is given. Binning and resizing are switched off: they would draw another size than the requested one.
SIZE_ARGUMENTS = ("width", "height", "use_resolution_binning", "max_area", "_auto_resize")
# How the number of frames is given, of a call that makes videos. All are whole numbers.
FRAMES = ("num_frames", "frames", "video_length")
OWN = ("self", "args", "kwargs", "output_type", "return_dict", "callback", "use_resolution_binning", "_auto_resize")


def parameters(pipe: "DiffusionPipeline") -> Mapping[str, inspect.Parameter]:
    """The parameters of the pipe's call, by name."""
    return inspect.signature(type(pipe).__call__).parameters


def default(pipe: "DiffusionPipeline", name: str) -> Any:
    """The default of this argument of the call; None: it has none."""
    parameter = parameters(pipe).get(name)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def size_arguments(pipe: "DiffusionPipeline") -> list[str]:
    """Those of SIZE_ARGUMENTS that the call takes. Some pipelines use the size of their input picture instead."""
    return [name for name in SIZE_ARGUMENTS if name in parameters(pipe)]


def size_values(width: int, height: int) -> dict[str, Any]:
    """The value of each of SIZE_ARGUMENTS for pictures of this size, in pixels."""
    values = (width, height, False, width * height, False)
    return dict(zip(SIZE_ARGUMENTS, values, strict=True))


def frames_argument(pipe: "DiffusionPipeline") -> str | None:
    """The argument that sets the number of frames of a clip; None: the call makes pictures."""
    return next((name for name in FRAMES if name in parameters(pipe)), None)


def frames_values(pipe: "DiffusionPipeline", frames: int | None) -> dict[str, Any]:
    """The arguments for clips of this many frames; None: the call's own number."""
    argument = frames_argument(pipe)
    return {} if argument is None or frames is None else {argument: frames}


def steps_values(pipe: "DiffusionPipeline", steps: int) -> dict[str, Any]:
    """The arguments for a call of this many denoising steps."""
    return steps_of(steps, parameters(pipe), default(pipe, "num_inference_steps"))


def steps_of(steps: int, taken: Container[str], default_steps: int | None) -> dict[str, Any]:
    """The arguments for this many steps, of a call with the arguments `taken` and this default number of steps.

    SanaSprint's default for an intermediate timestep belongs to its default number of steps, 2.
    """
    bound = "intermediate_timesteps" in taken and steps != default_steps
    return {"num_inference_steps": steps, **({"intermediate_timesteps": None} if bound else {})}


def guidance_of(workload: Workload, argument: str | None, taken: Container[str]) -> dict[str, Any]:
    """The arguments for the workload's guidance, of a call with the arguments `taken`, one of which sets the guidance.

    Ideogram4's call has a scale for each of its default number of steps, and refuses one scale beside them.
    """
    if argument is None or workload.guidance_scale is None or SCHEDULE in workload.call:
        return {}
    return {argument: workload.guidance_scale, **({SCHEDULE: None} if SCHEDULE in taken else {})}


def default_guidance(pipe: "DiffusionPipeline") -> float | None:
    """The scale by which a call is guided by default, of a schedule its first; None: the call sets none."""
    argument = guidance_argument(pipe)
    scale = default(pipe, argument) if argument else None
    if scale is None:
        scale = next(iter(default(pipe, SCHEDULE) or ()), None)
    return None if scale is None else float(scale)


def guidance_argument(pipe: "DiffusionPipeline") -> str | None:
    """The argument that sets the guidance: the first of GUIDANCE whose default is a number, else the first of them.

    QwenImage's `guidance_scale` is None by default: its `true_cfg_scale` acts. None: the call takes no guidance.
    """
    taken = [name for name in GUIDANCE if name in parameters(pipe)]
    return next((name for name in taken if default(pipe, name) is not None), taken[0] if taken else None)


def guidance_fault(pipe: "DiffusionPipeline") -> str | None:
    """Why guidance does not act at any scale, as a clause, as the checkpoint's configuration says; None: it acts.

    So distilled checkpoints are known: FLUX.1 schnell, FLUX.2 klein.
    """
    argument, config = guidance_argument(pipe), getattr(parts.find_denoiser(pipe), "config", None)
    name = type(pipe).__name__
    if argument is None:
        return f"the call of {name} takes no guidance"
    if getattr(pipe.config, "is_distilled", None):
        return "the checkpoint is distilled (its configuration has is_distilled=true)"
    embedded = argument == "guidance_scale" and not hasattr(type(pipe), "do_classifier_free_guidance")
    if embedded and getattr(config, "guidance_embeds", None) is False:
        return "the checkpoint is distilled (its denoiser's configuration has guidance_embeds=false)"
    return None


def guided_above(pipe: "DiffusionPipeline") -> float | None:
    """The scale above which the denoiser runs with and without the prompt: 1.0, or 0.0; None: it never does.

    The pipe's own `do_classifier_free_guidance` is asked. Where it has none, 1.0 is assumed, as in most pipelines.
    """
    if guidance_fault(pipe) is not None:
        return None
    if not hasattr(type(pipe), "do_classifier_free_guidance"):
        return 1.0
    before = dict(vars(pipe))
    try:
        answers = {}
        for below, scale in ((0.0, 0.5), (1.0, 1e3)):
            vars(pipe)["_guidance_scale"] = scale
            answers[below] = bool(pipe.do_classifier_free_guidance)
    except (AttributeError, TypeError):  # it depends on more than the scale, which only a call sets
        return 1.0
    finally:
        vars(pipe).pop("_guidance_scale")
        vars(pipe).update(before)
    return next((below for below, answer in answers.items() if answer), None)


def workload_values(pipe: "DiffusionPipeline", workload: Workload) -> dict[str, Any]:
    """The arguments of a call that the workload sets, except prompts and seeds.

    The negative prompt is one text for all prompts. Raises UserError where the call lacks an argument of the workload.
    """
    values = size_values(workload.width, workload.height) | steps_values(pipe, workload.steps)
    values = {name: value for name, value in values.items() if name in parameters(pipe)}
    values |= frames_values(pipe, workload.frames)
    values |= guidance_of(workload, guidance_argument(pipe), parameters(pipe))
    if workload.negative_prompt is not None:
        values["negative_prompt"] = workload.negative_prompt
    if workload.strength is not None:
        values["strength"] = workload.strength
    check_names(pipe, values | workload.call)
    return values | workload.call


def negative_prompt(pipe: "DiffusionPipeline") -> str | None:
    """The negative prompt of a guided call where the user names none. Only `true_cfg_scale` needs one."""
    needed = guidance_argument(pipe) == "true_cfg_scale" and "negative_prompt" in parameters(pipe)
    return BLANK if needed else None


def check_names(pipe: "DiffusionPipeline", values: Mapping[str, Any]) -> None:
    """Raises UserError for an argument that the call of the pipe does not take."""
    known = [name for name in parameters(pipe) if name not in OWN]
    for name in values:
        if name not in parameters(pipe):
            raise UserError(f"the call of {type(pipe).__name__} takes no {name!r}: {nearest(name, known)}")


def settable(pipe: "DiffusionPipeline") -> tuple[str, ...]:
    """The arguments that `--call` may set: those that the call takes and that no option of autotune sets."""
    taken = {guidance_argument(pipe), *CALL_OPTIONS, *OWN}
    names = (name for name in parameters(pipe) if name not in taken and not name.startswith("callback_on_step_end"))
    return tuple(name for name in names if not name.endswith(("image", "_embeds", "latents", "video", "conditions")))


def with_prompt(
    pipe_class: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, in which a single text in first place is the prompt, and lists are copies.

    `image` is the first parameter of some calls. Some pipelines (Z-Image) write into the lists that they are given.
    """
    names = [name for name in inspect.signature(pipe_class.__call__).parameters if name != "self"]
    given = {name: list(value) if type(value) is list else value for name, value in kwargs.items()}
    args = tuple(list(value) if type(value) is list else value for value in args)
    is_text = len(args) == 1 and (isinstance(args[0], str) or _texts(args[0]))
    if is_text and "prompt" in names and names[0] != "prompt" and "prompt" not in given:
        return (), {"prompt": args[0], **given}
    return args, given


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


class _Found(Exception):
    """The call has decided on its size: width, height."""


def default_size(pipe: "DiffusionPipeline", given: Mapping[str, Any] | None = None) -> tuple[int, int] | str:
    """Width and height, in pixels, of the pictures that a call draws by default, or why they can't be known.

    They are the defaults of the call, else what the pipe's attributes or the denoiser's configuration say, else what a
    call decides: it is begun, and stopped at its first method. Nothing is drawn, so that the pipe needs no weights.

    given  the pictures that the call needs, by argument name
    """
    sides = default(pipe, "width"), default(pipe, "height")
    if all(isinstance(side, int) for side in sides):
        return sides
    scale = parts.cell_px(pipe)
    cells = getattr(pipe, "default_sample_size", None)
    cells = cells or getattr(getattr(parts.find_denoiser(pipe), "config", None), "sample_size", None)
    if isinstance(cells, int):
        return cells * scale, cells * scale
    if isinstance(cells, list | tuple) and len(cells) > 1:
        return int(cells[-1]) * scale, int(cells[-2]) * scale
    found = _size_of_a_begun_call(pipe, given or {})
    if isinstance(found, tuple) and any(
        {found} == {picture.size for picture in each} for each in (given or {}).values()
    ):
        return f"{type(pipe).__name__} draws the size of the picture that it starts from"
    return found


def _size_of_a_begun_call(pipe: "DiffusionPipeline", given: Mapping[str, Any]) -> tuple[int, int] | str:
    """The local variables `width` and `height` of a call that is stopped as soon as both are known."""

    def stop(otherwise: Callable[..., Any] | None) -> Callable[..., Any]:
        def watch(*args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)  # of the pipe's __call__
            seen = [frame.f_locals.get(name) for name in ("width", "height")]
            if all(isinstance(side, int) for side in seen):
                raise _Found(*seen)
            if otherwise is None:
                raise LookupError("its call decides on the size too late")
            return None

        return watch

    hooks = {"check_inputs": stop(lambda: None), "encode_prompt": stop(None), "prepare_latents": stop(None)}
    hooks = {name: hook for name, hook in hooks.items() if hasattr(pipe, name)}
    vars(pipe).update(hooks)
    try:
        pipe(prompt=["a"], **given)
    except _Found as found:
        return found.args[0], found.args[1]
    except Exception as error:
        return f"a call without a size failed ({type(error).__name__}: {next(iter(str(error).splitlines()), '')})"
    finally:
        for name in hooks:
            del vars(pipe)[name]
    return f"{type(pipe).__name__} does not say which size it draws"
