"""NVML: the NVIDIA cards of this machine and their MIG slices. Any question may be declined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_DRIVER = ("NVML_ERROR_LIBRARY_NOT_FOUND", "NVML_ERROR_DRIVER_NOT_LOADED")
TRACES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")  # of a driver


@dataclass
class Card:
    """One card, or one slice of a card. None: NVML does not tell.

    declined  question -> what NVML said instead of an answer
    """

    uuid: str | None = None
    name: str | None = None
    memory_bytes: int | None = None
    capability: tuple[int, int] | None = None
    declined: dict[str, str] = field(default_factory=dict)


@dataclass
class Listing:
    """What NVML lists.

    cards     those that can be used, in the order of the PCI bus; of a card in MIG mode, its slices
    counted   for each card that CUDA counts its position in `cards`: of a card in MIG mode, that of its first slice
    driver    its version; None: not told
    absent    why there is no card, as a clause; None: there is one
    unusable  what is here but can't be used, as clauses
    """

    cards: list[Card] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)
    driver: str | None = None
    absent: str | None = None
    unusable: list[str] = field(default_factory=list)


def list_cards(slices: Sequence[str] = ()) -> Listing:
    """Ask NVML for every card. Never raises.

    slices  UUIDs of slices that are here for sure. Those that NVML does not list are added at the end.
    """
    import pynvml

    listing = Listing()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        listing.absent = f"NVML: {error}"
        if error.value not in [getattr(pynvml, name) for name in NO_DRIVER] or any(Path(t).exists() for t in TRACES):
            listing.unusable.append(f"there is an NVIDIA driver, but NVML, its interface, can't be asked ({error})")
        return listing
    try:
        _list(pynvml, listing)
        _add_slices(pynvml, listing, slices)
    finally:
        pynvml.nvmlShutdown()
    if not listing.cards:
        listing.absent = "; ".join(listing.unusable) or "NVML lists none"
    return listing


def _list(nvml: Any, listing: Listing) -> None:
    declined: dict[str, str] = {}
    listing.driver = _ask(nvml, declined, "driver", nvml.nvmlSystemGetDriverVersion)
    count = _ask(nvml, declined, "count", nvml.nvmlDeviceGetCount)
    if count is None:
        listing.unusable.append(f"NVML does not count its cards ({declined['count']})")
    refused: dict[str, list[int]] = {}
    for index in range(count or 0):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:  # NVML counts all cards, also those that a job or a container may not open
            refused.setdefault(str(error), []).append(index)
            continue
        parts = _slices(nvml, handle)
        if parts == []:
            listing.unusable.append(f"NVML's card {index} is in MIG mode, and no slice of it is here")
            continue
        listing.counted.append(len(listing.cards))
        listing.cards += parts or [_card(nvml, handle)]
    for why, indices in refused.items():
        cards = "cards" if len(indices) > 1 else "card"
        listing.unusable.append(f"NVML's {cards} {', '.join(map(str, indices))} can't be opened ({why})")


def _slices(nvml: Any, handle: Any) -> list[Card] | None:
    """The slices of a card in MIG mode that this process may see; None: the card is whole."""
    declined: dict[str, str] = {}
    mode = _ask(nvml, declined, "", nvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != 1:
        return None
    most = _ask(nvml, declined, "", nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    found = (_ask(nvml, declined, "", nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place) for place in range(most))
    return [_card(nvml, part) for part in found if part is not None]


def _add_slices(nvml: Any, listing: Listing, slices: Sequence[str]) -> None:
    known = {card.uuid for card in listing.cards}
    for uuid in slices:
        if uuid not in known:
            declined: dict[str, str] = {}
            handle = _ask(nvml, declined, "HandleByUUID", nvml.nvmlDeviceGetHandleByUUID, uuid)
            card = Card(declined=declined) if handle is None else _card(nvml, handle)
            card.uuid = uuid
            listing.cards.append(card)


def _card(nvml: Any, handle: Any) -> Card:
    card = Card()

    def answer(question: str) -> Any:
        return _ask(nvml, card.declined, question, getattr(nvml, f"nvmlDeviceGet{question}"), handle)

    uuid, name, memory, capability = map(answer, ("UUID", "Name", "MemoryInfo", "CudaComputeCapability"))
    card.uuid, card.name = uuid, name
    card.memory_bytes = None if memory is None else int(memory.total)
    card.capability = None if capability is None else (int(capability[0]), int(capability[1]))
    return card


def _ask(nvml: Any, declined: dict[str, str], question: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None; then the reason is added to `declined`."""
    try:
        return function(*arguments)
    except nvml.NVMLError as error:
        declined[question] = str(error)
        return None
