"""A KubeRay RayCronJob that runs a flow on a cluster of its own, with a ConfigMap of its files."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path
from typing import Any

import yaml

from earthgptx.workflows.flow.packing import Packed, pack
from earthgptx.workflows.flow.running import Flow
from earthgptx.workflows.schedule.cron import Cron, check_zone

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
    check_zone(zone)
    packed = pack(path, flow, most_bytes=MOST_BYTES)
    gpus = math.ceil(max((job.engine.gpus_per_replica for job in flow.jobs.values()), default=0))
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        **_contents(packed),
    }
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": cron.text,
            "timeZone": zone,
            "jobTemplate": {
                "entrypoint": f"earthgptx workflow run {MOUNTED}/{packed.main}",
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": 600,
                # KubeRay cannot tell an outage from a mistake: the next schedule tries again.
                "backoffLimit": 0,
                "rayClusterSpec": cluster(name, image, gpus=gpus),
            },
        },
    }
    return "---\n".join(yaml.safe_dump(each, sort_keys=False) for each in (settings, job))


def _contents(packed: Packed) -> dict[str, dict[str, str]]:
    """Returns files as the fields of a ConfigMap: as text, or base64 of what is none."""
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for name, data in packed.files.items():
        try:
            text[name] = data.decode("utf-8")
        except UnicodeDecodeError:
            binary[name] = base64.b64encode(data).decode()
    return {"data": text} | ({"binaryData": binary} if binary else {})


def _name(flow: str) -> str:
    """Returns a name as Kubernetes takes it: a label of RFC 1035, short enough for its pods."""
    plain = re.sub(r"[^a-z0-9-]+", "-", flow.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"flow-{plain}")[:40].rstrip("-")


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
        "authOptions": {"mode": "token"},
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
