"""Connects to the Ray cluster that the environment names, or starts Ray on this machine."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import psutil
import ray

from earthgptx.pipeline.engine.sharing import shared_replicas
from earthgptx.pipeline.errors import JobError, Outage
from earthgptx.pipeline.planning.plan import Plan

REACH_S = 20.0
"""Seconds for which a cluster's address is tried."""
SHUTDOWN_S = 20.0
"""Seconds that Ray may take to end."""


def connect(replicas: int) -> None:
    """Connects to Ray, or starts it on this machine.

    Raises:
        JobError: the cluster refuses the token.
        Outage: the cluster does not answer, or Ray does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        _reach(address)
    try:
        if address:
            ray.init(**quiet)
        else:
            cpus = max(os.cpu_count() or 1, replicas, shared_replicas())
            ray.init(num_cpus=cpus, include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
        with suppress(Exception):
            ray.shutdown()
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        if "uthentication" in reason or "token" in reason.lower():
            raise JobError(
                f"Ray at {address} refuses the token: {reason}. Set RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN"
            ) from error
        raise Outage(
            f"Ray at {address} does not answer, or refuses RAY_AUTH_TOKEN: {reason}"
            if address
            else f"Ray does not start on this machine: {reason}. Run the same command again"
        ) from error


def disconnect() -> None:
    """Disconnects from Ray, and ends it if this process started it.

    Ray waits for its own daemon, for ever if that is frozen: then what Ray has started for this
    process is killed.
    """

    def shutdown() -> None:
        with suppress(Exception):  # of a Ray that is dead
            ray.shutdown()

    ending = threading.Thread(target=shutdown, daemon=True)
    ending.start()
    ending.join(SHUTDOWN_S)
    if ending.is_alive():
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "/ray/" in " ".join(child.cmdline()) or child.name().startswith("ray::"):
                    child.kill()
        ending.join(SHUTDOWN_S)


def _reach(address: str) -> None:
    """Connects to the port of Ray's head: Ray itself would try it for a quarter of an hour.

    Raises:
        Outage: nobody answers there for `REACH_S`.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # such as `auto`
    limit = time.monotonic() + REACH_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=REACH_S).close()
            return
        except OSError as error:
            if time.monotonic() > limit:
                raise Outage(
                    f"Ray at {address} does not answer ({error}); check RAY_ADDRESS"
                ) from error
            time.sleep(1)


def replica_memory(plan: Plan) -> int:
    """Returns the memory to ask of Ray for a replica in bytes; at most what a machine has."""
    with suppress(Exception):
        most = max(node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"])
        return int(min(plan.replica_bytes, most))
    return plan.replica_bytes
