"""Signs addresses of Azure's blob storage with the tokens of Planetary Computer.

A token is valid for one container and less than an hour. It is asked for when a file is opened,
kept in memory, and asked for again before it expires.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

from earthgptx.catalogs.errors import CatalogDown

TOKENS = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
"""Server of tokens; PC_SDK_SAS_URL names another one, as for the package planetary-computer."""
STORAGE = ".blob.core.windows.net"
RENEW_S = 60.0
"""Time before its expiry at which a token is renewed."""
TIMEOUT_S = 20.0

_tokens: dict[tuple[str, str], tuple[str, float]] = {}
"""Token and expiry (seconds of the system's clock) by account and container."""
_guard = threading.Lock()


def signed(address: str) -> str:
    """Returns an address with a token, if it is one of blob storage and has none.

    Raises:
        CatalogDown: the server of tokens does not answer.
    """
    parts = urlsplit(address)
    host = (parts.hostname or "").lower()
    container = parts.path.strip("/").split("/", 1)[0]
    if not host.endswith(STORAGE) or not container or "sig=" in parts.query:
        return address
    token = _token(host.removesuffix(STORAGE), container)
    if not token:
        return address
    return parts._replace(query="&".join(each for each in (parts.query, token) if each)).geturl()


def _token(account: str, container: str) -> str:
    """Returns a token of a container; empty if the server knows no such container."""
    with _guard:
        token, expiry = _tokens.get((account, container), ("", 0.0))
        if expiry - time.time() > RENEW_S:
            return token
        token, expiry = _ask(account, container)
        _tokens[account, container] = token, expiry
        return token


def _ask(account: str, container: str) -> tuple[str, float]:
    import requests

    server = os.environ.get("PC_SDK_SAS_URL", TOKENS).rstrip("/")
    key = os.environ.get("PC_SDK_SUBSCRIPTION_KEY")
    headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
    try:
        answer = requests.get(f"{server}/{account}/{container}", headers=headers, timeout=TIMEOUT_S)
        if answer.status_code == 404:
            return "", time.time() + 3600  # a container of somebody else
        answer.raise_for_status()
        found = answer.json()
        expiry = datetime.fromisoformat(str(found["msft:expiry"]).replace("Z", "+00:00"))
        expiry = expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC)
        return str(found["token"]), expiry.timestamp()
    except (requests.RequestException, KeyError, ValueError) as error:
        raise CatalogDown(
            f"{server} gives no token for {account}/{container} "
            f"({type(error).__name__}: {error}); try again later"
        ) from error
