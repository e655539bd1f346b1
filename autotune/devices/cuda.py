"""CUDA: the NVIDIA GPUs of this machine, as NVML lists them. A GPU is told apart by its UUID, never by its number.

NVML counts cards in the order of the PCI bus, CUDA the fastest first, and CUDA_VISIBLE_DEVICES renumbers them. So a
child process is shown one card, by its UUID, and a process that sees several looks for the card by its UUID.
"""

import os
from typing import Any

from autotune.device import Device
from autotune.devices.compiler import fault_on_gpu
from autotune.devices.kind import Found, Kind, chosen
from autotune.devices.nvml import Card, Listing, list_cards
from autotune.errors import UserError

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
HEADS = (64, 96, 128, 160, 192, 256, 512)  # sizes that torch is asked of
ASKED = {"flash": "can_use_flash_attention", "cudnn": "can_use_cudnn_attention"}  # kernel -> torch's function
UNNAMED = "an NVIDIA GPU that NVML does not name"


def find_nvidia_gpus() -> Found:
    """The GPUs that CUDA_VISIBLE_DEVICES shows, in its order; without it all that may be opened, as NVML lists them."""
    entries = os.environ.get(VISIBLE)
    named = [entry.strip() for entry in (entries or "").split(",")]
    listing = list_cards([entry for entry in named if entry.startswith("MIG-")])
    if entries is None or listing.absent:
        visible = listing.cards
    elif any(entry.startswith("MIG-") for entry in named):
        visible = _pick(listing.cards, [card.uuid for card in listing.cards], entries)
    else:
        counted = [listing.cards[place] for place in listing.counted]
        visible = _pick(counted, [card.uuid for card in counted], entries)
    hides = f"{VISIBLE}={entries!r} shows none of the {len(listing.cards)} that are here"
    absent = listing.absent or (None if visible else hides)
    surprising = [hides] if listing.cards and not visible and entries not in ("", "-1") else []
    devices = tuple(_device(card, index, listing) for index, card in enumerate(visible))
    return Found(devices, absent, (*listing.unusable, *surprising))


def _pick(cards: list[Card], uuids: list[str | None], entries: str) -> list[Card]:
    return [cards[place] for place in chosen(entries, uuids) or []]


def _device(card: Card, index: int, listing: Listing) -> Device:
    driver = f", driver {listing.driver}" if listing.driver else ""
    told = [f"{question} ({why})" for question, why in card.declined.items()]
    evidence = [f"NVML does not tell {', '.join(told)}: torch is asked"] if told else []
    return Device(
        kind="cuda",
        index=index,
        uuid=card.uuid,
        name=card.name or UNNAMED,
        memory_bytes=card.memory_bytes or 0,
        compute_capability=card.capability,
        driver=listing.driver,
        evidence=(f"NVML lists it{driver}", *evidence, *listing.unusable),
    )


def _environment(device: Device) -> dict[str, str]:
    """Shows a process this GPU alone. Without a UUID it is named by its place among those that are visible here."""
    entry = device.uuid
    if entry is None:
        shown = [word.strip() for word in os.environ.get(VISIBLE, "").split(",")]
        entry = shown[device.index] if device.index < len(shown) and shown[device.index] else str(device.index)
    return {ORDER: "PCI_BUS_ID", VISIBLE: entry}


def _probe(device: Device, by_trial: bool) -> Device:
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            f"{device.name} was found, but this torch ({torch.__version__}) can't use it: install a CUDA build "
            "of torch that fits the driver, or use --device cpu."
        )
    name = _torch_name(device)
    capability = torch.cuda.get_device_capability(name)
    kernels = [kernel for kernel, has in _kernels(capability).items() if has]
    heads = {kernel: [head for head in HEADS if _takes(kernel, head, name)] for kernel in kernels if kernel in ASKED}
    return seen_by_torch(device, name).model_copy(
        update={
            "compute_capability": capability,
            "sdpa_kernels": tuple(kernels),
            "sdpa_heads": {kernel: max(sizes) for kernel, sizes in heads.items() if sizes},
            "compile_fault": fault_on_gpu(name, by_trial=by_trial),
            "evidence": (
                *device.evidence,
                f"torch {torch.__version__} built for {', '.join(torch.cuda.get_arch_list())}",
            ),
        }
    )


def seen_by_torch(device: Device, name: str) -> Device:
    """The device with what torch says of the one that it calls `name`: name, UUID, size and memory.

    torch's memory is what a process can use: NVML counts more, and in a MIG slice may count the whole card's.
    """
    import torch

    told = torch.cuda.get_device_properties(name)
    return device.model_copy(
        update={
            "uuid": device.uuid or uuid_in(told),
            "name": told.name if device.name == UNNAMED else device.name,
            "memory_bytes": int(told.total_memory),
            "shares_memory": bool(getattr(told, "is_integrated", False)),
            "multiprocessors": int(told.multi_processor_count),
        }
    )


def uuid_in(properties: Any) -> str | None:
    """The UUID in torch's properties, which are without the prefix GPU- or MIG-; None: this torch does not tell."""
    bare = str(getattr(properties, "uuid", "") or "")
    return f"{'MIG' if ' MIG ' in properties.name else 'GPU'}-{bare}" if bare else None


def _kernels(capability: tuple[int, int]) -> dict[str, bool]:
    """SDPA kernel -> can it run in float16 or bfloat16 on a GPU of this compute capability, with this torch?"""
    import torch

    backends = torch.backends.cuda
    return {
        "flash": capability >= (8, 0) and backends.is_flash_attention_available(),
        "efficient": True,
        "cudnn": capability >= (8, 0) and torch.backends.cudnn.is_available(),
        "math": True,
    }


def _takes(kernel: str, head: int, name: str) -> bool:
    """Does torch say that this kernel computes the attention of heads of this size, on its device `name`?

    The rule differs with GPU, torch and cuDNN: cuDNN takes heads of 128, or 256 on 9.0 and 10.x from cuDNN 9.22 on, if
    torch was built for that (ATen/native/transformers/cuda/sdp_utils.cpp).
    """
    import torch

    backends = torch.backends.cuda
    asked = torch.empty(1, 2, 64, head, dtype=torch.float16, device=name)
    parameters = backends.SDPAParams(asked, asked, asked, None, 0.0, False, False)
    return bool(getattr(backends, ASKED[kernel])(parameters))


def _torch_name(device: Device) -> str:
    """torch's name of this GPU in this process. Raises UserError where torch does not see it."""
    import torch

    if device.uuid is None or os.environ.get(VISIBLE) == device.uuid:
        return f"cuda:{0 if torch.cuda.device_count() == 1 else device.index}"
    bare = device.uuid.partition("-")[2]
    for index in range(torch.cuda.device_count()):
        if str(getattr(torch.cuda.get_device_properties(index), "uuid", "")) == bare:
            return f"cuda:{index}"
    raise UserError(
        f"{device.name} ({device.uuid}) is here, but torch does not see it in this process: {VISIBLE} is "
        f"{os.environ.get(VISIBLE, 'not set')!r}, and torch sees {torch.cuda.device_count()} GPUs."
    )


def _at(index: int) -> Device:
    """The GPU that torch calls cuda:`index` in this process."""
    import torch

    count = torch.cuda.device_count()
    if index >= count:
        seen = f"cuda:0 to cuda:{count - 1}" if count else "no GPU"
        raise UserError(f"--device cuda:{index}: there is no such device; torch sees {seen} in this process, and cpu.")
    told = torch.cuda.get_device_properties(index)
    uuid = uuid_in(told)
    for device in find_nvidia_gpus().devices:
        if device.uuid == uuid:
            return seen_by_torch(device, f"cuda:{index}")
    capability = torch.cuda.get_device_capability(index)
    unlisted = Device(kind="cuda", index=index, name=told.name, memory_bytes=0, compute_capability=capability)
    return seen_by_torch(unlisted, f"cuda:{index}")


CUDA = Kind(
    name="cuda",
    what="NVIDIA GPU",
    find=find_nvidia_gpus,
    probe=_probe,
    torch_name=_torch_name,
    at=_at,
    environment=_environment,
)
