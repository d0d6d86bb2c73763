"""Comparing results byte by byte."""

import json
from collections.abc import Mapping
from pathlib import Path


def contents(url: str | Path) -> dict[str, bytes]:
    """Every file of a result that does not tell the time or the place of the run."""
    base = Path(url)
    files = {
        str(path.relative_to(base)): path.read_bytes()
        for path in sorted(base.rglob("*"))
        if path.is_file()
    }
    root = json.loads(files.pop("zarr.json"))
    for key in ("output", "engine"):
        root["attributes"]["earthgptx"]["job"].pop(key)
    files["zarr.json"] = json.dumps(root).encode()
    for path in sorted(base.with_suffix(".objects").rglob("*.parquet")):
        files["/".join(("objects beside", *path.parts[-2:]))] = path.read_bytes()
    return {name: data for name, data in files.items() if not name.startswith("tiles/seconds/c")}


def same(one: str | Path, other: str | Path) -> None:
    alike(contents(one), contents(other))


def alike(ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> bool:
    """Fails with the names of the files that differ."""
    assert sorted(ours) == sorted(theirs), set(ours) ^ set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    return True
