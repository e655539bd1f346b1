"""Settings: what a courier is started with; written for it as JSON."""

from autotune.frozen_model import FrozenModel


class Settings(FrozenModel):
    """What a courier is started with.

    address     of a Ray cluster; None: a Ray of our own on this machine, that ends with this process
    workers     cards to use at most; None: all
    resource    what a card is in Ray: "GPU", or a resource of the user's that stands for one
    cards       of the Ray of our own: how many of that resource this machine has
    shown       of the Ray of our own: these cards alone, as CUDA_VISIBLE_DEVICES names them; None: all that are there
    function    MODULE:NAME that performs an order, see work.py
    driver_ip   of this machine in the cluster; None: as Ray finds it
    """

    address: str | None = None
    workers: int | None = None
    resource: str = "GPU"
    cards: int = 0
    shown: str | None = None
    function: str = "autotune.cluster.work:perform"
    driver_ip: str | None = None
