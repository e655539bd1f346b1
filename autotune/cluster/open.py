"""Open: a team for a search: the equal cards of this machine, or those of a Ray cluster."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from autotune.cluster.messenger import RayMessenger
from autotune.cluster.settings import Settings
from autotune.cluster.team import Team
from autotune.device import Device
from autotune.devices import find_device, find_devices
from autotune.errors import UserError
from autotune.execution.scratch import scratch


@contextmanager
def open_team(workers: str | int | None, address: str | None, device: str | None) -> Iterator[Team | None]:
    """The team that these options ask for; None: there is one card, and the search runs as without them.

    workers  how many cards to use, or "auto": all that are there. None with an address: all
    address  of a Ray cluster ("ray://HOST:10001", "HOST:6379", "auto"); None: the cards of this machine
    device   of the search, as `--device` takes it: its equals take part

    Raises UserError where there is no Ray, or less than is asked for.
    """
    if workers is None and address is None:
        yield None
        return
    count = read_workers(workers)
    own = find_device(device)
    settings = choose_settings(count, address, own, [found for found in find_devices() if found.is_gpu])
    if settings is None:
        yield None
        return
    if find_spec("ray") is None:
        raise UserError("several workers need Ray: pip install 'ray[client]>=2.49'.")
    with scratch("autotune-cluster-") as folder, Team(RayMessenger(settings, folder)) as team:
        yield team


def read_workers(workers: str | int | None) -> int | None:
    """The number; None: all. Raises UserError."""
    if workers in (None, "auto"):
        return None
    if not str(workers).isdecimal() or int(str(workers)) < 1:
        raise UserError(f"--workers takes a number of at least 1, or auto, not {workers!r}.")
    return int(str(workers))


def alike(one: Device, other: Device) -> bool:
    """Are they cards of one model, with one driver and as much memory?"""
    return all(getattr(one, name) == getattr(other, name) for name in ("kind", "name", "memory_bytes", "driver"))


def choose_settings(count: int | None, address: str | None, device: Device, there: Sequence[Device]) -> Settings | None:
    """What the courier is started with; None: one card of this machine needs none. Raises UserError.

    there  the GPUs of this machine
    """
    if address is not None:
        host = address.partition(":")[0]
        inside = host if host.startswith("127.") else None
        return Settings(address=address, workers=count, resource="GPU" if device.is_gpu else "card", driver_ip=inside)
    if not device.is_gpu:
        if count in (None, 1):
            return None
        raise UserError(
            f"--workers {count}: trials on one processor would disturb each other's timings. Without a GPU, name a "
            "cluster of several machines by --address."
        )
    equal = [found for found in there if alike(found, device)]
    if count is not None and count > len(equal):
        raise UserError(
            f"--workers {count}: this machine has {len(equal)} {device.name} with one driver and as much memory; give "
            f"at most {len(equal)}, or a cluster by --address."
        )
    workers = count or len(equal)
    return Settings(workers=workers, cards=len(equal), shown=shown(equal, there)) if workers > 1 else None


def shown(equal: Sequence[Device], there: Sequence[Device]) -> str | None:
    """The equal cards by their UUIDs, where there are others: Ray would count the others first. None: there are none.

    Raises UserError where they have none that Ray takes: NVIDIA's have.
    """
    if len(equal) == len(there):
        return None
    if any(card.kind != "cuda" or card.uuid is None for card in equal):
        raise UserError(
            f"this machine has other cards than {equal[0].name}, too: show the search these alone by the variable of "
            "their driver, such as HIP_VISIBLE_DEVICES."
        )
    return ",".join(card.uuid for card in equal if card.uuid)
