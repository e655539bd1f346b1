"""ControlNet: one or several models that guide the denoiser by pictures, each with a picture and a weight of its own.

Several are joined to diffusers' MultiControlNetModel. Weights are an argument of the call: the conditioning scale.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import call, locate

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def load(pipeline: Pipeline, dtype: "torch.dtype", *, local_files_only: bool) -> Any:
    """The pipe's component `controlnet`, from the weights on the disk. Raises UserError or what diffusers raises."""
    from diffusers import ControlNetModel

    nets = []
    for name, (source, _) in pipeline.controlnets.items():
        revision = locate.hub_revision(pipeline.part_revisions.get(name))
        where = locate.part_folder(source, revision=revision, local_files_only=local_files_only)
        nets.append(ControlNetModel.from_pretrained(where, dtype=dtype, use_safetensors=True, local_files_only=True))
    return joined(nets)


def joined(nets: Sequence[Any]) -> Any:
    """The ControlNet, or the model that several of them make."""
    if len(nets) == 1:
        return nets[0]
    from diffusers import MultiControlNetModel

    return MultiControlNetModel(nets)


def check(cls: Any, number: int) -> None:
    """Raises UserError unless the pipeline's class takes so many ControlNets, as the types in its signature say.

    Flux and SD3 have ControlNets of their own.
    """
    from diffusers import ControlNetModel, MultiControlNetModel

    types = [kind for kind in cls._get_signature_types().get("controlnet", ()) if isinstance(kind, type)]
    if not any(issubclass(ControlNetModel, kind) for kind in types):
        raise UserError(f"{cls.__name__} takes a ControlNet of another kind than autotune can load.")
    if number > 1 and not any(issubclass(MultiControlNetModel, kind) for kind in types):
        raise UserError(f"{cls.__name__} takes one ControlNet, and --controlnet is given {number} times.")


def weights(pipe: "DiffusionPipeline", pipeline: Pipeline) -> dict[str, Any]:
    """The fields of a Pipeline for the weights of its ControlNets, where the user gave any.

    One without a weight gets the default of the call. Raises UserError where the call takes no weights.
    """
    given = dict(pipeline.controlnets.values())
    if all(weight is None for weight in given.values()):
        return {}
    if call.CONTROL_SCALE not in call.parameters(pipe):
        raise UserError(f"--controlnet: the call of {type(pipe).__name__} takes no weight: leave out :WEIGHT.")
    usual = float(call.default(pipe, call.CONTROL_SCALE) or 1.0)
    first, *others = ((source, usual if weight is None else weight) for source, weight in given.items())
    return {"controlnet_weight": first[1], "more_controlnets": dict(others)}
