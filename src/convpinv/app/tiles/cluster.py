"""Tiles on a cluster, by Dask: a task a tile, which reads its own window and writes its own chunks."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convpinv.app.console import ComputationError, MissingExtraError
from convpinv.app.files import reason
from convpinv.app.tiles.plan import Tile
from convpinv.app.tiles.planning import Plan
from convpinv.app.tiles.work import Work
from convpinv.arguments import ArgumentError, ConvpinvError

# How often a tile is tried again: after an error of its own, and after the death of the worker that had it.
RETRIES = 3


def run(plan: Plan, target: Path, tiles: list[Tile], workers: int | None, scheduler: str | None) -> Iterator[str]:
    """Restore tiles on a cluster of this machine or of the user's; yield a line or nothing for each finished tile.

    Raises
    ------
    MissingExtraError, ArgumentError, ComputationError
        With one line: what is not installed, the scheduler that does not answer, or why a tile failed.
    """
    try:
        import dask.config
        import distributed
    except ImportError:
        raise MissingExtraError(
            "--workers and --scheduler need Dask; install it by: pip install 'convpinv[scale]'"
        ) from None
    settings = {
        # A spilled or paused worker would only wait: a tile holds nothing but its own window, and that is planned.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.scheduler.allowed-failures": RETRIES,
        "distributed.admin.log-format": "%(message)s",
        "logging.distributed": "critical",
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        if scheduler is None:
            cluster = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0"
                )
            )
            client = stack.enter_context(distributed.Client(cluster))
        else:
            try:
                client = stack.enter_context(distributed.Client(scheduler, timeout=10))
            except (OSError, ValueError) as error:
                raise ArgumentError(
                    f"--scheduler {scheduler} does not answer ({reason(error)}); start it first"
                ) from None
        yield from _tiles(client, plan, target, tiles)


def _tiles(client: Any, plan: Plan, target: Path, tiles: list[Tile]) -> Iterator[str]:
    import distributed

    text = json.dumps(plan.to_dict(), sort_keys=True)
    place = client.scatter(text, broadcast=True, hash=False)
    futures = client.map(
        _do,
        [tile.index for tile in tiles],
        plan=place,
        target=os.path.abspath(target),
        pure=False,
        retries=RETRIES,
        batch_size=1000,
    )
    waiting = distributed.as_completed(futures)
    line = f"dashboard {client.dashboard_link}" if client.dashboard_link else ""
    for future in waiting:
        if future.status != "finished":
            error = future.exception()
            client.cancel(futures)
            if isinstance(error, ConvpinvError):
                raise error
            raise ComputationError(
                f"{plan.source}: a tile failed on the cluster ({reason(error)}); what is finished is kept for --resume"
            ) from error
        yield line
        line = ""


def _do(index: int, *, plan: str, target: str) -> int:
    """Restore one tile, in a worker."""
    work, tiles = _work(plan, target)
    work.do(tiles[index])
    return index


@functools.lru_cache(maxsize=1)
def _work(text: str, target: str) -> tuple[Work, list[Tile]]:
    """Open the ends once for a worker; the tiles by their numbers."""
    plan = Plan.from_dict(json.loads(text))
    return Work(plan, Path(target), _device(plan)), list(plan.layout.tiles())


def _device(plan: Plan) -> str:
    """Return the worker's graphics card: workers take turns at those there are."""
    if plan.device != "cuda":
        return plan.device
    import torch
    from distributed import get_worker

    name = str(get_worker().name)
    turn = int(name) if name.isdigit() else sum(name.encode())
    return f"cuda:{turn % max(1, torch.cuda.device_count())}"
