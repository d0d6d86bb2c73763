"""Addresses: what of them may be shown, and which of them a job may open.

An address may hold a password, a token or a signature: in its user info, query, fragment or path
parameters. Only whoever opens it sees them. Errors, results, hashes and logs get the redacted form;
the errors of this package and of the pipeline redact their messages themselves.

A catalog is somebody else's document. What its links and assets point to is opened only where the
catalog itself lives, where a known provider keeps its imagery, or where the job says.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import unquote, urlsplit

from earthgptx.catalogs.errors import AddressRefused
from earthgptx.catalogs.redaction import redacted

SCHEMES = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Schemes of remote addresses that are opened."""
PROVIDERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "earth-search.aws.element84.com",
        (
            "*.amazonaws.com",
            "sentinel-cogs",
            "sentinel-s1-*",
            "sentinel-s2-*",
            "usgs-landsat",
            "e84-earth-search-*",
            "naip-*",
            "copernicus-dem-*",
        ),
    ),
    ("planetarycomputer.microsoft.com", ("*.blob.core.windows.net",)),
    ("*.dataspace.copernicus.eu", ("*.dataspace.copernicus.eu", "eodata")),
    ("landsatlook.usgs.gov", ("landsatlook.usgs.gov", "usgs-landsat")),
    ("explorer.dea.ga.gov.au", ("data.dea.ga.gov.au", "dea-public-data*", "*.amazonaws.com")),
    ("explorer.sandbox.dea.ga.gov.au", ("data.dea.ga.gov.au", "dea-public-data*")),
)
"""Hosts of catalogs, and the hosts and buckets where they keep their imagery."""
NAME_IT = "name it under source.access.hosts if you trust it"


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a job may open files."""

    catalog: str = field(repr=False)
    """Address of the catalog; what lives beside it may be opened."""
    hosts: tuple[str, ...] = ()
    """Further hosts and buckets, with `*` for any characters."""
    folders: tuple[str, ...] = ()
    """Further local folders."""

    def check(self, address: str) -> None:
        """Lets an address pass that may be opened.

        Raises:
            AddressRefused: it may not.
        """
        why = self._why_not(address)
        if why:
            raise AddressRefused(f"{redacted(address)} is not opened: {why}")

    def knows(self, address: str) -> bool:
        """Whether an address is of the catalog's own host, or of one that the job names."""
        host = host_of(address)
        return self._is_own(scheme_of(address), host) or _matches(host, self.hosts)

    def _why_not(self, address: str) -> str:
        if address != address.strip() or not address.isprintable():
            return "it holds blanks or control characters at its ends, or unprintable ones"
        if "\\" in address:
            return "parsers do not agree on what a backslash means"
        if "::" in address or "/vsi" in unquote(address).lower():
            return "chained and virtual addresses are never opened"
        scheme = scheme_of(address)
        if "%" in host_of(address):
            return "a percent sign in a host hides what it is"
        if scheme == "file" and ("?" in address or "#" in address):
            return "parsers do not agree on what of a local path is a query"
        if scheme in ("", "file"):
            return self._why_not_local(address)
        return _why_not_remote(self, scheme, host_of(address))

    def _why_not_host(self, scheme: str, host: str) -> str:
        if scheme not in SCHEMES:
            return f"only {', '.join(SCHEMES)} and local paths are opened"
        if not host:
            return "it names no host"
        if self._is_own(scheme, host) or _matches(host, self.hosts):
            return ""
        if any(
            fnmatchcase(host_of(self.catalog), own) and _matches(host, kept)
            for own, kept in PROVIDERS
        ):
            return ""
        if scheme in ("http", "https") and _is_private(host):
            return f"{host} is a private address; {NAME_IT}"
        if self._is_local:  # the user's own file, which may point to any public place
            inside = scheme in ("http", "https") and _resolves_to_private(host)
            return f"{host} resolves to a private address; {NAME_IT}" if inside else ""
        return f"the catalog lives elsewhere; name {host} under source.access.hosts if you trust it"

    @property
    def _is_local(self) -> bool:
        return scheme_of(self.catalog) in ("", "file")

    def _is_own(self, scheme: str, host: str) -> bool:
        return (
            not self._is_local
            and host == host_of(self.catalog)
            and scheme in (scheme_of(self.catalog), "https")
        )

    def _why_not_local(self, address: str) -> str:
        path = Path(local_path(address)).resolve()
        own = [Path(local_path(self.catalog)).resolve().parent] if self._is_local else []
        if any(path.is_relative_to(folder) for folder in own):
            return ""
        if any(path.is_relative_to(Path(folder).resolve()) for folder in self.folders):
            return ""
        if not own:
            return "a remote catalog does not open local files"
        return (
            f"it is a local file outside the catalog's folder {own[0]}; name its folder under "
            "source.access.folders if you trust it"
        )


@lru_cache(maxsize=4096)
def _why_not_remote(reach: Reach, scheme: str, host: str) -> str:
    """The verdict on a host; cached, since thousands of Items name the same few."""
    return reach._why_not_host(scheme, host)


def scheme_of(address: str) -> str:
    """Returns the scheme in lower case; empty for a local path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+._-]*):", address)
    return found[1].lower() if found else ""


def host_of(address: str) -> str:
    """Returns host and port, or the bucket, in lower case."""
    try:
        return urlsplit(address).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def local_path(address: str) -> str:
    """Returns the path of a local address."""
    return unquote(urlsplit(address).path) if scheme_of(address) == "file" else address


def _matches(host: str, patterns: Iterable[str]) -> bool:
    """Whether a host fits a pattern; a pattern without a port fits every port."""
    return any(
        fnmatchcase(host, each.lower()) or fnmatchcase(host.partition(":")[0], each.lower())
        for each in patterns
    )


def _is_private(host: str) -> bool:
    """Whether a host is a private, local or link-local address, or a name without a domain."""
    name = (host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]).rstrip(
        "."
    )
    with suppress(OSError):
        # As resolvers read them: 127.1, 2130706433 and 0x7f.1 are addresses too.
        name = socket.inet_ntoa(socket.inet_aton(name))
    try:
        return _is_inside(name)
    except ValueError:
        return "." not in name or name.endswith((".internal", ".local", ".localhost"))


def _resolves_to_private(host: str) -> bool:
    """Whether a public name resolves to a private address.

    A name that cannot be resolved does not: a proxy may know it. Whoever owns a name may have it
    resolve to something else a moment later; that is not noticed.
    """
    name = host.partition(":")[0]
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = (str(where[0]).partition("%")[0] for *_, where in found)
    return any(_is_inside(each) for each in addresses)


_CARRIES = [ip_network(each) for each in ("64:ff9b::/96", "::/96", "2002::/16", "fec0::/10")]
"""Addresses that may stand for one of another network: of IPv4, or of a site."""


def _is_inside(address: str) -> bool:
    """Whether an address is not of the public internet, or may stand for one that is not.

    Raises:
        ValueError: it is no address.
    """
    found = ip_address(address)
    return not found.is_global or any(
        found in net for net in _CARRIES if net.version == found.version
    )
