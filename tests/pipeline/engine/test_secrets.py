"""Passwords, tokens and signatures reach whoever opens an address, and nobody else."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pystac
import pytest

from earthgptx import JobSpec, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import Outage
from tests.archive import Archive, targets
from tests.chaos.servers import FileServer

PASSWORD, SIGNATURE, TOKEN = "PASSWORT-1", "SIGNATUR-2", "TOKEN-3"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with FileServer(tmp_path / "served").running() as running:
        assert isinstance(running, FileServer)
        yield running


def signed_job(server: FileServer, folder: Path) -> JobSpec:
    """A job over a catalog with a password, whose assets are signed."""
    archive = Archive(folder / "served")
    archive.add("a", np.minimum(targets(5, (300, 300), 8), 200), nodata=None)
    archive.save()
    place = server.url.replace("http://", f"http://user:{PASSWORD}@")
    for path in (folder / "served").rglob("*.json"):
        text = path.read_text().replace(str(folder / "served"), place)
        path.write_text(text)
    item_path = folder / "served" / "a" / "a.json"
    item = pystac.Item.from_dict(json.loads(item_path.read_text()))
    item.assets["image"].href = f"{place}/a.tif?sig={SIGNATURE}"
    item.assets["image"].extra_fields["alternate"] = {"href": f"{place}/b.tif?sig={SIGNATURE}"}
    item.properties["note"] = f"see {place}/doc?token={TOKEN}"
    item_path.write_text(json.dumps(item.to_dict()))
    document = archive.job(folder / "out" / "a.zarr").model_dump(mode="json", by_alias=True)
    document["source"]["catalog"] = f"{place}/catalog.json"
    (folder / "out").mkdir()
    return JobSpec.from_dict(document)


def nowhere(folder: Path, *texts: str) -> None:
    """Asserts that no file and no text holds a secret."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found
    found |= {f"text {number}": text.encode() for number, text in enumerate(texts)}
    for where, content in found.items():
        for secret in (PASSWORD, SIGNATURE, TOKEN):
            assert secret.encode() not in content, where


def test_secrets_are_stored_nowhere(server: FileServer, tmp_path: Path, pool: ReplicaPool) -> None:
    asked: list[str] = []
    server.fault = lambda _method, path: asked.append(path) or ""  # type: ignore[func-returns-value]
    spec = signed_job(server, tmp_path)
    made = plan(spec)
    report = run(made, pool=pool)
    assert report.objects > 0
    assert any(SIGNATURE in path for path in asked), "imagery is opened with its signature"
    nowhere(tmp_path / "out", repr(report), json.dumps(made.warnings))


def test_secrets_are_in_no_error(server: FileServer, tmp_path: Path, pool: ReplicaPool) -> None:
    spec = signed_job(server, tmp_path)
    made = plan(spec)
    server.fault = lambda _method, path: "403" if ".tif" in path else ""
    with pytest.raises(Outage, match=r"a\.tif") as ended:
        run(made, pool=pool)
    nowhere(tmp_path / "out", str(ended.value))
    server.fault = lambda _method, path: "403" if ".json" in path else ""
    with pytest.raises(Exception, match=r"catalog\.json") as refused:
        plan(spec)
    nowhere(tmp_path / "out", str(refused.value))


def test_a_plan_is_the_same_with_another_password(server: FileServer, tmp_path: Path) -> None:
    spec = signed_job(server, tmp_path)
    before = plan(spec).item_keys
    for path in (tmp_path / "served").rglob("*.json"):
        path.write_text(path.read_text().replace(SIGNATURE, "OTHER").replace(PASSWORD, "NEW"))
    document = spec.model_dump(mode="json", by_alias=True)
    document["source"]["catalog"] = spec.source.catalog.replace(PASSWORD, "NEW")
    assert plan(JobSpec.from_dict(document)).item_keys == before


def test_an_output_takes_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="credentials of an output come from the environment"
    ) as no:
        Archive(tmp_path).job(f"s3://key:{PASSWORD}@bucket/a.zarr")
    assert PASSWORD not in str(no.value)
