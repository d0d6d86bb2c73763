"""The package as it is installed: wheel and sdist, in a fresh environment outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import xarray as xr

from tests import REPO

UV = Path(sys.executable).with_name("uv")
FLOORS = ("catalogs", "model", "pipeline", "workflows")


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that sees nothing of the checkout."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--out-dir", folder, REPO, cwd=folder)
    return folder


def test_the_wheel_has_one_package_and_what_it_needs(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"earthgptx"}
    assert {f"earthgptx/{floor}/__init__.py" for floor in FLOORS} <= set(names)
    weights = "earthgptx/model/weights/nano"
    assert {f"{weights}/{name}" for name in ("config.json", "model.safetensors")} <= set(names)
    assert "earthgptx/workflows/job_templates/sample.yaml" in names


def test_the_sdist_holds_files_and_no_links(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if member.islnk() or member.issym()]
    names = {member.name.split("/", 1)[-1] for member in members}
    assert "src/earthgptx/model/weights/nano/model.safetensors" in names


def test_the_installed_wheel_runs_a_job(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    fresh = tmp_path / "fresh"
    run(UV, "venv", "--quiet", "--python", sys.executable, fresh, cwd=tmp_path)
    python = fresh / "bin" / "python"
    lock = REPO / "requirements.lock"
    run(UV, "pip", "install", "--quiet", "--python", python, "-c", lock, wheel, cwd=tmp_path)
    command = fresh / "bin" / "earthgptx"
    assert run(command, "--version", cwd=tmp_path).strip() == "0.1.0"
    torch = "import importlib.util; print(importlib.util.find_spec('torch'))"
    assert run(python, "-c", torch, cwd=tmp_path).strip() == "None"
    run(command, "init", "first.yaml", cwd=tmp_path)
    assert "objects" in run(command, "run", "first.yaml", cwd=tmp_path)
    found = xr.open_datatree(tmp_path / "results" / "first.zarr", engine="zarr")
    assert found["objects"].sizes["object"] > 50
