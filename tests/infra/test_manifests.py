"""The manifest against the schemas of KubeRay's own resource definitions, and what the image is
made of.
"""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from earthgptx import JobSpec
from tests import REPO

INFRA = REPO / "infra"


def schema_of(crd: Path, version: str) -> dict[str, Any]:
    definition = yaml.safe_load(crd.read_text())
    [found] = [
        v["schema"]["openAPIV3Schema"]
        for v in definition["spec"]["versions"]
        if v["name"] == version
    ]
    return closed(found)


def closed(schema: Any) -> Any:
    """The same schema with unknown keys refused, as the API server does with a strict request."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items() if key != "format"}
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    open_ended = "additionalProperties" in made or made.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
    return made


@pytest.fixture(scope="module")
def schema(data: Path) -> dict[str, Any]:
    found = schema_of(data / "kuberay-crds" / "ray.io_rayjobs.yaml", "v1")
    found["properties"]["metadata"] = {"type": "object"}
    return found


@pytest.fixture
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((INFRA / "rayjob.yaml").read_text())
    return found


def test_the_manifest_is_what_kuberay_takes(
    schema: dict[str, Any], manifest: dict[str, Any]
) -> None:
    jsonschema.validate(manifest, schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(entrypont="x"),
        lambda spec: spec.update(backoffLimit="two"),
        lambda spec: spec["rayClusterSpec"].pop("headGroupSpec"),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"][
            "containers"
        ][0].update(imag="x"),
    ],
)
def test_a_wrong_manifest_would_be_seen(
    schema: dict[str, Any], manifest: dict[str, Any], spoil: Any
) -> None:
    spoil(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema)


def test_the_manifest_runs_our_command_in_our_image_and_not_as_root(
    manifest: dict[str, Any],
) -> None:
    spec = manifest["spec"]
    assert spec["entrypoint"].split()[:2] == ["earthgptx", "run"]
    cluster = spec["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["image"].startswith("earthgptx")
            assert "/job" in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_the_ray_of_the_manifest_is_the_ray_of_the_lock(manifest: dict[str, Any]) -> None:
    lock = (INFRA.parent / "requirements.lock").read_text().splitlines()
    [ray] = [line.removeprefix("ray==") for line in lock if line.startswith("ray==")]
    assert manifest["spec"]["rayClusterSpec"]["rayVersion"] == ray


def test_the_image_copies_all_packages_and_is_not_root() -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    for package in ("catalogs", "model", "pipeline", "workflows"):
        assert f"COPY {package} {package}" in lines
    assert "USER earthgptx" in lines
    assert "ARG TORCH=cpu" in lines


def test_the_job_of_the_manifest_is_an_example() -> None:
    JobSpec.from_yaml(INFRA.parent / "examples" / "harbour.yaml")
