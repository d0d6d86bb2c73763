"""A real STAC API over a database: PostgreSQL with PostGIS, pgstac, and stac-fastapi in front.

pgstac's packages lie in a virtual environment of their own, `.pgstac` in the repository: their
versions of common packages need not be ours. It is made at first use.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from tests import REPO

PACKAGES = ("pypgstac[psycopg]==0.10.*", "stac-fastapi-pgstac==7.*", "uvicorn")
VENV = REPO / ".pgstac"
USER = "postgres"
"""Who runs the database if the tests run as root, which PostgreSQL refuses."""


class Missing(Exception):
    """What the server needs is not on this machine; the message says what."""


@contextmanager
def pgstac(folder: Path, items: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yields the address of an API that holds Items.

    Args:
        folder: folder for the database, which may be removed afterwards.
        items: documents of the Items; their collections are made.

    Raises:
        Missing: PostgreSQL, PostGIS or pgstac's packages are not there and cannot be installed.
    """
    programs, packages = _postgres(), _packages()
    database, port = folder / "database", _free_port()
    database.mkdir(parents=True)
    who: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:
        who["user"] = USER
        shutil.chown(database, USER)
        for parent in database.parents:
            with suppress(PermissionError):
                parent.chmod(parent.stat().st_mode | 0o011)
    initdb = [str(programs / "initdb"), "-D", str(database), "-U", "stac", "--auth=trust"]
    subprocess.run([*initdb, "-E", "UTF8", "--no-sync"], check=True, stdout=DEVNULL, **who)
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": "40",
    }
    server = [programs / "postgres", "-D", database, "-p", str(port)]
    server += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with _running(server, port, folder / "postgres.log", **who):
        dsn = f"postgresql://stac@127.0.0.1:{port}/postgres"
        _load(packages, dsn, folder, items)
        api_port = _free_port()
        env = os.environ | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "stac",
            "PGPASSWORD": "unused",
            "PGDATABASE": "postgres",
            "STAC_FASTAPI_TITLE": "tests",
        }
        api = [packages / "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory"]
        api += ["--port", str(api_port), "--log-level", "warning"]
        with _running(api, api_port, folder / "api.log", env=env, cwd=folder):
            yield f"http://127.0.0.1:{api_port}"


def _postgres() -> Path:
    """Returns the folder of the newest PostgreSQL with PostGIS."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        version = folder.parent.name
        if Path(f"/usr/share/postgresql/{version}/extension/postgis.control").exists():
            return folder
    raise Missing("PostgreSQL with PostGIS: apt-get install postgresql-15 postgresql-15-postgis-3")


def _packages() -> Path:
    """Returns the folder of the programs of pgstac's environment."""
    programs = VENV / "bin"
    if (VENV / "made").exists():
        return programs
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", *PACKAGES]
    try:
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run(pip, check=True, timeout=600, stderr=DEVNULL)
    except (subprocess.SubprocessError, OSError) as error:
        raise Missing(f"{', '.join(PACKAGES)} in {VENV}: {error}") from error
    (VENV / "made").touch()
    return programs


def _load(programs: Path, dsn: str, folder: Path, items: Iterable[dict[str, Any]]) -> None:
    collections = set()
    with (folder / "items.ndjson").open("w") as file:
        for item in items:
            collections.add(item["collection"])
            file.write(json.dumps(item) + "\n")
    with (folder / "collections.ndjson").open("w") as file:
        for name in sorted(collections):
            file.write(json.dumps(_collection(name)) + "\n")
    pypgstac = str(programs / "pypgstac")
    subprocess.run([pypgstac, "migrate", "--dsn", dsn], check=True, stdout=DEVNULL)
    for kind in ("collections", "items"):
        file_name = str(folder / f"{kind}.ndjson")
        load = [pypgstac, "load", kind, file_name, "--dsn", dsn, "--method", "insert"]
        subprocess.run(load, check=True, stdout=DEVNULL, stderr=DEVNULL)


def _collection(name: str) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": name,
        "license": "other",
        "links": [],
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None, None]]},
        },
    }


@contextmanager
def _running(command: list[Any], port: int, log: Path, **how: Any) -> Iterator[None]:
    """Runs a server until the end of the block; waits until it listens."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=file, stderr=subprocess.STDOUT, **how
        )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.1)
        else:
            raise AssertionError(f"{command[0]} does not listen: {log.read_text()[-2000:]}")
        yield
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
