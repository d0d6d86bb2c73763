"""How imagery is opened: signatures, headers, and the settings of an object store.

A job's `source.access` names where secrets are (an environment variable, a profile), never the
secrets. What opens a file gets them through the plan: neither `Opening` nor anything that is stored
shows them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import urlsplit

import pystac
from pydantic import BaseModel, ConfigDict, field_validator

from earthgptx.catalogs.address import Reach, host_of, scheme_of
from earthgptx.catalogs.errors import CatalogError
from earthgptx.catalogs.signing import signed

DEFAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("planetarycomputer.microsoft.com", {"sign": "planetary-computer"}),
    ("*.dataspace.copernicus.eu", {"endpoint": "https://eodata.dataspace.copernicus.eu"}),
    ("explorer*.dea.ga.gov.au", {"anonymous": True}),
)
"""Hosts of catalogs, and what holds for their imagery where the job says nothing else."""
BEHIND_A_LOGIN = ("landsatlook.usgs.gov",)
"""Hosts whose files want a login in a browser; their Items name the same file on S3."""


class Access(BaseModel):
    """How a job opens the imagery of its catalog, and what it may open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: tuple[str, ...] = ()
    """Hosts and buckets that may be opened beside the catalog's own; `*` for any characters."""
    folders: tuple[str, ...] = ()
    """Local folders that may be opened beside the catalog's own."""
    sign: Literal["planetary-computer", "none"] | None = None
    """Who signs addresses; None for the catalog's usual way."""
    headers: dict[str, str] = {}
    """HTTP headers for the catalog's host and for `hosts`: by header, the name of the environment
    variable that holds its value."""
    endpoint: str | None = None
    """Address of the S3 server; None for the environment's, else AWS."""
    profile: str | None = None
    """Profile of the AWS configuration."""
    anonymous: bool | None = None
    """Whether S3 is asked without credentials."""
    requester_pays: bool = False
    """Whether to read buckets whose reader pays."""

    @field_validator("headers")
    @classmethod
    def _names(cls, headers: dict[str, str]) -> dict[str, str]:
        # Not shown: whoever writes the secret itself should not find it in an error.
        wrong = [
            name for name, value in headers.items() if not re.fullmatch(r"[A-Za-z_]\w*", value)
        ]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: write the name of an environment variable, not the value"
            )
        return headers


@dataclass(frozen=True)
class Opening:
    """What is needed to open the imagery of a plan."""

    reach: Reach
    access: Access = field(default_factory=Access)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of the headers."""

    @classmethod
    def of(cls, catalog: str, access: Access) -> Opening:
        """Returns the opening of a job, with what is usual for its catalog.

        Args:
            catalog: address of the catalog.
            access: section of the job file.

        Raises:
            CatalogError: the environment lacks a variable that a header names.
        """
        usual: dict[str, Any] = {}
        for host, settings in DEFAULTS:
            if fnmatchcase(host_of(catalog), host):
                usual |= settings
        access = access.model_copy(
            update={name: value for name, value in usual.items() if getattr(access, name) is None}
        )
        missing = sorted(name for name in access.headers.values() if name not in os.environ)
        if missing:
            raise CatalogError(
                f"source.access.headers: the environment has no {', '.join(missing)}; set it"
            )
        values = {header: os.environ[name].strip() for header, name in access.headers.items()}
        odd = [
            header for header, value in values.items() if not re.fullmatch(r"[\x20-\x7e]*", value)
        ]
        if odd:
            raise CatalogError(
                f"source.access.headers: what the environment has for {', '.join(odd)} is no value "
                "of a header; it holds a line break or a character that is not ASCII"
            )
        return cls(Reach(catalog, tuple(access.hosts), tuple(access.folders)), access, values)

    def address(self, asset: pystac.Asset) -> str:
        """Returns the address of an asset that is opened; not signed yet."""
        if host_of(asset.href) in BEHIND_A_LOGIN:
            try:
                return str(asset.extra_fields["alternate"]["s3"]["href"])
            except (KeyError, TypeError):
                pass
        return asset.href

    def signed(self, address: str) -> str:
        """Returns an address with a signature that is valid now, if addresses are signed.

        Raises:
            CatalogDown: the server of signatures does not answer.
        """
        return signed(address) if self.access.sign == "planetary-computer" else address

    def gdal(self, address: str) -> dict[str, Any]:
        """Returns GDAL's options for an address."""
        access = self.access
        options: dict[str, Any] = {}
        if access.requester_pays:
            options["AWS_REQUEST_PAYER"] = "requester"
        if access.anonymous:
            options["AWS_NO_SIGN_REQUEST"] = "YES"
        if access.profile:
            options["AWS_PROFILE"] = access.profile
        endpoint = (
            access.endpoint
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
        )
        if endpoint:
            parts = urlsplit(_with_scheme(endpoint))
            options |= {
                "AWS_S3_ENDPOINT": parts.netloc,
                "AWS_HTTPS": "YES" if parts.scheme == "https" else "NO",
                "AWS_VIRTUAL_HOSTING": "FALSE",
            }
        if self.headers and scheme_of(address) in ("http", "https") and self.reach.knows(address):
            options["GDAL_HTTP_HEADERS"] = "\r\n".join(
                f"{name}: {value}" for name, value in self.headers.items()
            )
        return options

    def fsspec(self, address: str) -> dict[str, Any]:
        """Returns fsspec's options for an address of an object store."""
        access = self.access
        if not scheme_of(address).startswith("s3"):
            return {}
        options = {
            "anon": access.anonymous,
            "profile": access.profile,
            "requester_pays": access.requester_pays,
            "endpoint_url": access.endpoint and _with_scheme(access.endpoint),
        }
        return {name: value for name, value in options.items() if value}

    def hint(self, address: str) -> str:
        """Returns what to set if an address is refused for want of access."""
        if scheme_of(address).startswith("s3"):
            return (
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or source.access.profile, "
                "anonymous, endpoint, or requester_pays (you pay for what you read)"
            )
        return "set source.access.sign, or a token under source.access.headers"


def _with_scheme(endpoint: str) -> str:
    return endpoint if "://" in endpoint else f"https://{endpoint}"
