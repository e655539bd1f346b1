"""Courier: the process that talks to Ray: it takes orders by lines on its input, and gives results by lines.

    python -P -m autotune.cluster.courier SETTINGS.json

The searching process starts it, and none but this process loads Ray: a Ray driver is ended by Ray itself where the
cluster's head is gone, and no search is to end with it. When the input closes, because the search has ended in any way,
the tasks are cancelled and their processes killed.

Each card is a placement group of one bundle, so that a card keeps its orders: the tasks of a bundle always get the same
GPU. A task holds its card, runs one order in a process of its own (max_calls=1) and is never repeated by Ray
(max_retries=0): the search decides what is given out again.
"""

import importlib
import json
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from autotune.cluster.parcel import Listing, listing, pack, unpack
from autotune.cluster.settings import Settings
from autotune.frozen_model import read_json

LOOPBACK = "127.0.0.1"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # that Ray puts into its messages
WAIT_S = 0.2  # for results, between two looks at the input
LOOK_S = 1.0  # between two looks at which cards there are
SETTLES_S = 5.0  # after a task has failed, it is known whether its node is dead


class Courier:
    """One connection to a Ray cluster. `say` is called with each message for the search, a JSON object."""

    def __init__(self, settings: Settings, say: Callable[[dict[str, Any]], None]) -> None:
        self.settings, self.say = settings, say
        self.groups: list[PlacementGroup] = []
        self.nodes: dict[int, str] = {}  # card -> the id of its node, while it has one
        self.running: dict[
            Any, tuple[int, int, Path]
        ] = {}  # the task's reference -> (ticket, card, folder of its files)
        self.failed: list[tuple[float, int, str]] = []  # when to tell, ticket, why
        self.parcels: dict[str, tuple[Listing, Any]] = {}  # folder -> its files, which are in the object store
        module, _, name = settings.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        needs = {"num_gpus": 1} if settings.resource == "GPU" else {"resources": {settings.resource: 1}}
        self.task = ray.remote(num_cpus=0, max_retries=0, max_calls=1, num_returns=1, **needs)(function)

    def connect(self) -> None:
        """Reserve the cards. Raises ConnectionError and others where the cluster can't be reached."""
        settings = self.settings
        quiet = {"log_to_driver": False, "logging_level": "warning"}
        if settings.address is None:
            own = {"num_gpus": settings.cards} if settings.resource == "GPU" else {}
            others = {} if own else {"resources": {settings.resource: settings.cards}}
            closed = {"_node_ip_address": LOOPBACK, "include_dashboard": False}
            ray.init(address="local", num_cpus=1, **closed, **own, **others, **quiet)
            where = ray.nodes()[0]["NodeManagerAddress"]
            if where != LOOPBACK:
                raise ConnectionError(f"Ray would listen at {where}, where others can reach it")
        else:
            driver = {"_node_ip_address": settings.driver_ip} if settings.driver_ip else {}
            ray.init(address=settings.address, **driver, **quiet)
        there = int(ray.cluster_resources().get(settings.resource, 0))
        count = there if settings.workers is None else min(settings.workers, there)
        self.say({"says": "cards", "count": count, "there": there})
        self.groups = [placement_group([{settings.resource: 1}]) for _ in range(count)]

    def look(self) -> None:
        """Tell which cards have come, which have gone with their node, and which orders are lost.

        A task fails before its node is known to be dead. So the card is told first: what is lost must not go to it.
        """
        hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        for card, group in enumerate(self.groups):
            table = placement_group_table(group)
            node = table["bundles_to_node_id"].get(0) if table["state"] == "CREATED" else None
            node = node if node in hosts else None
            if self.nodes.get(card) == node:
                continue
            if card in self.nodes:
                del self.nodes[card]
                self.say({"says": "gone", "card": card})
                self._give_up(card)
            if node is not None:
                self.nodes[card] = node
                self.say({"says": "ready", "card": card, "host": hosts[node]})
        due = [failed for failed in self.failed if failed[0] <= time.monotonic()]
        self.failed = [failed for failed in self.failed if failed not in due]
        for _, ticket, why in due:
            self.say({"says": "lost", "ticket": ticket, "why": why})

    def _give_up(self, card: int) -> None:
        """Tell of the orders of a card that has gone: they would wait until it comes back, if it ever does."""
        for reference, (ticket, own, _) in list(self.running.items()):
            if own == card:
                del self.running[reference]
                with suppress(ray.exceptions.RayError):
                    ray.cancel(reference, force=True)
                self.say({"says": "lost", "ticket": ticket, "why": "its node is gone"})

    def give(self, ticket: int, card: int, order: str, folders: Sequence[str], to: str) -> None:
        """Start a task. `folders`: of the files that the order wants, on this machine."""
        strategy = PlacementGroupSchedulingStrategy(self.groups[card], placement_group_bundle_index=0)
        reference = self.task.options(scheduling_strategy=strategy).remote(order, *map(self._parcel, folders))
        self.running[reference] = (ticket, card, Path(to))

    def _parcel(self, folder: str) -> Any:
        """The folder's files in Ray's store, put there once for as long as no file is new or has changed."""
        found = listing(Path(folder))
        if folder not in self.parcels or self.parcels[folder][0] != found:
            self.parcels[folder] = found, ray.put(pack(Path(folder)))
        return self.parcels[folder][1]

    def collect(self) -> None:
        """Write the files of tasks that have ended, and tell."""
        ended, _ = ray.wait(list(self.running), timeout=WAIT_S) if self.running else ([], [])
        for reference in ended:
            try:
                result, files = ray.get(reference)
            except ray.exceptions.RayError as error:
                ticket, _, _ = self.running.pop(reference)
                self.failed.append((time.monotonic() + SETTLES_S, ticket, _clause(error)))
                continue
            ticket, _, folder = self.running.pop(reference)
            try:
                unpack(files, folder)
            except (OSError, ValueError) as error:
                self.say({"says": "lost", "ticket": ticket, "why": f"its files can't be written here: {error}"})
                continue
            self.say({"says": "done", "ticket": ticket, "result": json.loads(result)})

    def close(self) -> None:
        """Cancel every task, which kills its process, and give the cards back."""
        for reference in self.running:
            with suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)
        for group in self.groups:
            with suppress(ray.exceptions.RayError):
                remove_placement_group(group)
        ray.shutdown()


def _clause(error: BaseException) -> str:
    """The first sentence of what Ray says, or of what a task has raised."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in COLOUR.sub("", str(cause)).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {(lines or [''])[0].split('. ')[0][:200]}"


def main() -> None:
    settings = Settings.parse(read_json(Path(sys.argv[1]), "settings"), sys.argv[1])
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever Ray prints is no message

    def say(message: Mapping[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")

    courier, asked = Courier(settings, say), queue.Queue[str]()
    threading.Thread(target=_read, args=(asked,), daemon=True).start()
    try:
        courier.connect()
    except Exception as error:  # of many classes; the search says it in its words
        say({"says": "unreachable", "why": _clause(error)})
        return
    try:
        _serve(courier, asked)
    finally:
        courier.close()


def _serve(courier: Courier, asked: "queue.Queue[str]") -> None:
    """Until the input closes."""
    looks = 0.0
    while True:
        with suppress(queue.Empty):
            while True:
                line = asked.get(timeout=0 if courier.running else WAIT_S)
                if not line:
                    return
                courier.give(**json.loads(line))
        courier.collect()
        looks -= WAIT_S
        if looks <= 0:
            courier.look()
            looks = LOOK_S


def _read(asked: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        asked.put(line)
    asked.put("")


if __name__ == "__main__":
    main()
