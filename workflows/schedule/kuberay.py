"""A KubeRay RayCronJob that runs a flow on a cluster of its own, with a ConfigMap of its files."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.storage.blobs import is_local
from earthgptx.workflows.flow.running import Flow
from earthgptx.workflows.schedule.cron import Cron

MOUNTED = "/flow"
MOST_BYTES = 900_000
"""Bytes of all files of a ConfigMap, which may have a mebibyte."""


def manifests(path: Path, flow: Flow, cron: Cron, *, zone: str, image: str) -> str:
    """Returns the manifests as YAML documents.

    Args:
        path: path of the flow file.
        flow: the flow.
        cron: when it runs.
        zone: time zone of the schedule, such as Etc/UTC.
        image: container image with this package.

    Raises:
        JobError: the flow needs what the cluster cannot reach.
    """
    name = _name(flow.spec.name)
    _check_zone(zone)
    gpus = math.ceil(max((job.engine.gpus_per_replica for job in flow.jobs.values()), default=0))
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": _files(path, flow),
    }
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": cron.text,
            "timeZone": zone,
            "jobTemplate": {
                "entrypoint": f"earthgptx workflow run {shlex.quote(f'{MOUNTED}/{path.name}')}",
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": 600,
                # KubeRay cannot tell an outage from a mistake: the next schedule tries again.
                "backoffLimit": 0,
                "rayClusterSpec": cluster(name, image, gpus=gpus),
            },
        },
    }
    return "---\n".join(yaml.safe_dump(each, sort_keys=False) for each in (settings, job))


def _name(flow: str) -> str:
    """Returns a name as Kubernetes takes it: a label of RFC 1035, short enough for its pods."""
    plain = re.sub(r"[^a-z0-9-]+", "-", flow.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"flow-{plain}")[:40].rstrip("-")


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise JobError(f"'{zone}' is no time zone; write Etc/UTC or Europe/Berlin") from error


def cluster(name: str, image: str, *, gpus: int = 0) -> dict[str, Any]:
    """Returns the RayCluster of a flow, as in `infra/rayjob.yaml`.

    Args:
        name: name of the flow's ConfigMap.
        image: container image.
        gpus: GPUs of a worker.
    """
    accelerator = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "rayVersion": "2.60.0",
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": _pod("ray-head", name, image, cpu="2", memory="4Gi"),
        },
        "workerGroupSpecs": [
            {
                "groupName": "replicas",
                "replicas": 2,
                "minReplicas": 1,
                "maxReplicas": 8,
                "rayStartParams": {"num-gpus": str(gpus)} if gpus else {},
                "template": _pod("ray-worker", name, image, cpu="4", memory="8Gi", **accelerator),
            }
        ],
    }


def _pod(container: str, name: str, image: str, **size: str) -> dict[str, Any]:
    return {
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000},
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "resources": {"limits": size, "requests": dict(size)},
                    "env": [
                        {"name": "RAY_health_check_period_ms", "value": "1000"},
                        {"name": "RAY_health_check_failure_threshold", "value": "2"},
                    ],
                    "envFrom": [{"secretRef": {"name": "earthgptx-storage", "optional": True}}],
                    "volumeMounts": [{"name": "flow", "mountPath": MOUNTED, "readOnly": True}],
                }
            ],
            "volumes": [{"name": "flow", "configMap": {"name": name}}],
        }
    }


def _files(path: Path, flow: Flow) -> dict[str, str]:
    """Returns the flow file, its job files, and small files that they name, by name."""
    wanted = {path.absolute()}
    for node in flow.nodes:
        if node.step.job:
            wanted.add(flow.folder / node.step.job)
            wanted |= _local(node.name, flow.jobs[node.name])
        if node.step.publish and is_local(node.step.publish):
            raise JobError(f"step '{node.name}': {node.step.publish} is a local path; name a URL")
        if node.step.select:
            raise JobError(
                f"step '{node.name}' writes a local table, which a cluster loses; leave it out"
            )
    found: dict[str, str] = {}
    for each in sorted(wanted):
        if each.parent != flow.folder:
            raise JobError(f"{each} does not lie beside the flow file; move it there")
        if not re.fullmatch(r"[-._a-zA-Z0-9]+", each.name):
            raise JobError(f"'{each.name}' is no name of a file in a ConfigMap; rename it")
        try:
            found[each.name] = each.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"{each} cannot be sent to a cluster: {error}") from error
    size = sum(len(text.encode()) for text in found.values())
    if size > MOST_BYTES:
        raise JobError(
            f"the files of the flow have {size:,} bytes, and a ConfigMap takes {MOST_BYTES:,}"
        )
    return found


def _local(name: str, job: JobSpec) -> set[Path]:
    """Returns the local files that a job reads and that can be sent.

    Raises:
        JobError: its catalog, output, model, or result of prompts is a local path.
    """
    named = [("source.catalog", job.source.catalog), ("output", job.output)]
    named += [("prompts.from", job.prompts.origin)] if job.prompts.is_result else []
    named += [("model", job.model)] if "/" in job.model else []  # a folder of weights
    named += [("source.access.folders", each) for each in job.source.access.folders]
    for key, address in named:
        if is_local(address):
            raise JobError(
                f"step '{name}': {key} {address} is a local path, which a cluster does not reach; "
                "name a URL"
            )
    files = [job.source.aoi] if isinstance(job.source.aoi, str) else []
    files += [job.prompts.origin] if job.prompts.is_file else []
    return {Path(each) for each in files if "://" not in each}
