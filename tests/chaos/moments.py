"""Moments of a run at which a test breaks something, in the driver and in its replicas.

The environment names the moment and what to do there: EARTHGPTX_CHAOS="MOMENT ACTION FOLDER". The
action is done once, by the first process that reaches the moment and writes its id to the file
`reached` in the folder.

    kill       the process kills itself
    freeze     the process stops itself, as a suspended machine does
    wait       the process waits until the file `go` exists
    raise      raises an OSError as a full disk does
    ahead      the process's clock goes five hours ahead
    back       the process's clock goes five hours back
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from earthgptx.model.interface.tile import TileInput, TileOutput
from earthgptx.pipeline.analysis.cfar import Cfar
from earthgptx.pipeline.engine import finishing, replica, steps
from earthgptx.pipeline.results import layout, store

NAME = "EARTHGPTX_CHAOS"
DRIVER = ("create", "stitch", "objects", "publish", "finish")
REPLICA = ("load", "infer", "commit", "paint", "overview")


def at(moment: str) -> None:
    """Does what the environment wants done at a moment."""
    wanted, action, folder = (os.environ.get(NAME) or "- - -").split(" ", 2)
    if wanted != moment:
        return
    try:
        with (Path(folder) / "reached").open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "raise":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action in ("ahead", "back"):
        hours, before = (5 if action == "ahead" else -5), time.time
        time.time = lambda: before() + 3600 * hours  # type: ignore[assignment]
    while action == "wait" and not (Path(folder) / "go").exists():
        time.sleep(0.05)


def _before(module: Any, name: str, moment: str, count: int = 1) -> None:
    """Has a function reach a moment when it is called for the `count`th time."""
    function: Callable[..., Any] = getattr(module, name)
    calls = [0]

    @functools.wraps(function)
    def wrapped(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == count:
            at(moment)
        return function(*args, **more)

    setattr(module, name, wrapped)


def arm() -> None:
    """Arms the moments of this process."""
    _before(layout, "_create_tables", "create")
    _before(finishing, "Gathering", "stitch")
    _before(finishing, "put_files", "objects")
    _before(steps, "published_item", "publish")
    _before(store, "set_finished", "finish")
    _before(replica, "keep_answers", "infer", 2)
    _before(replica, "commit_block", "commit", 2)
    _before(replica, "paint_block", "paint", 2)
    _before(replica, "overview_shard", "overview", 2)


class Moments(Cfar):
    """CFAR that takes a while; its replicas reach the moments of the environment."""

    @classmethod
    def load(cls) -> Moments:
        arm()
        at("load")
        return cls()

    def analyse(self, tiles: Sequence[TileInput]) -> list[TileOutput]:
        time.sleep(0.02 * len(tiles))
        return super().analyse(tiles)
