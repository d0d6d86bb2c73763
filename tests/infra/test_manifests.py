"""The manifests against the schemas of KubeRay's own resource definitions, and what the image is
made of.
"""

import copy
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from earthgptx import JobSpec
from tests import REPO

INFRA = REPO / "infra"


@functools.cache
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


KINDS = {
    "rayjob": "ray.io_rayjobs.yaml",
    "raycronjob": "ray.io_raycronjobs.yaml",
    "raycluster": "ray.io_rayclusters.yaml",
}


def manifest_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((INFRA / f"{name}.yaml").read_text())
    return found


def job_of(name: str) -> dict[str, Any]:
    """The part of a manifest that is a RayJob's."""
    spec: dict[str, Any] = manifest_of(name)["spec"]
    return spec["jobTemplate"] if name == "raycronjob" else spec


def cluster_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = (
        manifest_of(name)["spec"] if name == "raycluster" else job_of(name)["rayClusterSpec"]
    )
    return found


def schema(data: Path, name: str) -> dict[str, Any]:
    found = schema_of(data / "kuberay-crds" / KINDS[name], "v1")
    return found | {"properties": found["properties"] | {"metadata": {"type": "object"}}}


@pytest.mark.parametrize("name", KINDS)
def test_the_manifest_is_what_kuberay_takes(data: Path, name: str) -> None:
    jsonschema.validate(manifest_of(name), schema(data, name))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(entrypont="x"),
        lambda spec: spec.update(backoffLimit="two"),
        lambda spec: spec["rayClusterSpec"].pop("headGroupSpec"),
        lambda spec: spec["rayClusterSpec"].update(authOptions={"mode": "none"}),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"][
            "containers"
        ][0].update(imag="x"),
    ],
)
def test_a_wrong_manifest_would_be_seen(data: Path, spoil: Any) -> None:
    wrong = copy.deepcopy(manifest_of("rayjob"))
    spoil(wrong["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema(data, "rayjob"))


@pytest.mark.parametrize("name", ["rayjob", "raycronjob"])
def test_a_job_is_our_command(name: str) -> None:
    assert job_of(name)["entrypoint"].split()[:2] == ["earthgptx", "run"]
    for pod in pods(name):
        for container in pod["containers"]:
            assert "/job" in [mount["mountPath"] for mount in container["volumeMounts"]]


def pods(name: str) -> list[dict[str, Any]]:
    cluster = cluster_of(name)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("name", KINDS)
def test_a_cluster_is_our_image_and_ray_wants_a_token_and_is_not_root(name: str) -> None:
    lock = (INFRA.parent / "requirements.lock").read_text().splitlines()
    [ray] = [line.removeprefix("ray==") for line in lock if line.startswith("ray==")]
    assert cluster_of(name)["rayVersion"] == ray
    assert cluster_of(name)["authOptions"] == {"mode": "token"}
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["image"].startswith("earthgptx")


def test_compose_wants_a_token_and_listens_on_this_machine_alone() -> None:
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    for name in ("head", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert services[name]["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
        assert "--metrics-export-port=8080" in services[name]["command"]
    for service in services.values():
        assert ":latest" not in service["image"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (INFRA / source).is_dir()


def test_the_image_holds_what_hadolint_says() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    ended = subprocess.run([hadolint, INFRA / "Dockerfile"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_image_copies_all_packages_and_is_not_root() -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    for package in ("catalogs", "model", "pipeline", "workflows"):
        assert f"COPY {package} {package}" in lines
    assert "USER 1000" in lines
    assert "ARG TORCH=cpu" in lines


def test_the_job_of_the_manifest_is_an_example() -> None:
    JobSpec.from_yaml(INFRA.parent / "examples" / "harbour.yaml")
