"""Tells a webhook how a run of a flow has ended."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from urllib.parse import urlsplit

import requests
import structlog

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.flow.running import StepReport, exit_code
from earthgptx.workflows.flow.spec import Notify

log = structlog.get_logger()

TIMEOUT_S = 20
SIGNATURE = "X-EarthGPTX-Signature"
"""Header with `sha256=` and the HMAC of the body."""


def key_of(notify: Notify) -> bytes:
    """Returns the key that signs messages; empty for none.

    Raises:
        JobError: the environment lacks the variable that the flow names.
    """
    if notify.secret is None:
        return b""
    if not os.environ.get(notify.secret):
        raise JobError(f"notify.secret: the environment has no variable {notify.secret}")
    return os.environ[notify.secret].encode()


def body_of(flow: str, reports: Sequence[StepReport]) -> bytes:
    """Returns what is sent, as JSON."""
    code = exit_code(reports)
    document = {
        "flow": flow,
        "ended": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "state": "error" if code else "finished",
        "exit_code": code,
        "steps": [asdict(report) for report in reports],
    }
    return json.dumps(document).encode()


def tell(notify: Notify, flow: str, reports: Sequence[StepReport]) -> bool:
    """Sends a message; returns whether it was taken. One that is not ends no run."""
    body, key = body_of(flow, reports), key_of(notify)
    headers = {"Content-Type": "application/json"}
    if key:
        headers[SIGNATURE] = f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"
    try:
        answer = requests.post(
            notify.url, data=body, headers=headers, timeout=TIMEOUT_S, allow_redirects=False
        )
        answer.raise_for_status()
        if answer.status_code >= 300:
            raise requests.RequestException(f"it redirects ({answer.status_code})")
    except (requests.RequestException, ValueError) as error:
        # Neither the path nor the text of the error, which has it: it may be a secret.
        status = getattr(getattr(error, "response", None), "status_code", "")
        host = urlsplit(notify.url).hostname
        log.warning("the webhook was not told", host=host, why=f"{type(error).__name__} {status}")
        return False
    return True
