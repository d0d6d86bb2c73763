"""Results whose every finished state stays readable: Zarr stores in Icechunk repositories.

A run works on a branch of its own, which begins where a killed run has left its branch, else at
`main`. Replicas write into forks of it; the driver merges them and commits. Readers see `main`,
which moves when time slices are finished, and its tags and snapshots.
"""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from earthgptx.pipeline.errors import JobError, Outage, OutputError, PipelineError, RunLost
from earthgptx.pipeline.storage.blobs import is_versioned, open_blobs, plain
from earthgptx.pipeline.storage.cloud import s3_settings
from earthgptx.pipeline.storage.fence import Fence

if TYPE_CHECKING:
    import icechunk

log = structlog.get_logger()

MAIN = "main"
RUN = "run-"
"""Beginning of the name of a run's branch."""
TAGS = "tags"
"""Key of a snapshot's metadata with its tags; only those that readers have seen have it."""
SLICES_A_MANIFEST = 8
"""Time slices whose chunks are listed in one file, so that a commit does not write all of them."""


@dataclass(frozen=True, slots=True)
class Version:
    """A state of a result; without any of these the last one."""

    snapshot: str = ""
    """Id of a snapshot."""
    tag: str = ""
    """Name of a tag, such as that of a time slice when it was finished."""
    as_of: datetime | None = None
    """A moment: the state that readers saw then."""

    def __post_init__(self) -> None:
        """Refuses more than one.

        Raises:
            JobError: more than one is given.
        """
        if sum(map(bool, (self.snapshot, self.tag, self.as_of))) > 1:
            raise JobError("snapshot, tag and as_of exclude one another; give one")

    @property
    def is_last(self) -> bool:
        """Whether it is the last state."""
        return not (self.snapshot or self.tag or self.as_of)

    @property
    def words(self) -> str:
        """The state in words; empty for the last one."""
        if self.snapshot:
            return f"snapshot {self.snapshot}"
        if self.tag:
            return f"tag {self.tag}"
        return f"state as of {self.as_of:%Y-%m-%dT%H:%M:%S%z}" if self.as_of else ""


LAST = Version()
KNOWN = 3
"""States that a refusal names."""
BROKEN = ("not found", "clean prefix", "incompatible", "invalid", "corrupt", "deserializ", "decod")
"""What Icechunk says of what no other try will mend."""
UNKNOWN = ("snapshot not found:", "invalid snapshot id:", "ref not found", "invalid ref name")
"""What Icechunk says of a snapshot or a tag that is not there."""


class BranchStore(WrapperStore[Any]):
    """The zarr store of a run's branch, for the driver. What is written is kept by `save`."""

    def __init__(self, url: str, repository: icechunk.Repository, fence: Fence) -> None:
        """Begins the branch of a run, if it has none yet, where a killed run has left its own.

        Raises:
            RunLost: another run holds the output.
        """
        self._url, self._repository, self._fence = url, repository, fence
        self._branch = f"{RUN}{fence.token[:12]}"
        self._merged: list[Any] = []
        with self._guarded():
            branches = repository.list_branches()
            if self._branch not in branches:
                before = sorted(name for name in branches if name.startswith(RUN))
                start = repository.lookup_branch(before[-1] if before else MAIN)
                repository.create_branch(self._branch, start)
                for name in before:  # so that nobody commits to it any more
                    repository.delete_branch(name)
                self._complete_tags()
            super().__init__(repository.writable_session(self._branch).store)
        self._session = self._store.session
        self._fork = b""

    def _with_store(self, store: Any) -> BranchStore:
        raise NotImplementedError("a branch has one store")

    def _complete_tags(self) -> None:
        """Makes the tags that a killed run has promised and not made."""
        there, seen = self._repository.list_tags(), self._repository.lookup_branch(MAIN)
        for each in self._repository.ancestry(branch=self._branch):
            self._make_tags([n for n in each.metadata.get(TAGS, []) if n not in there], each.id)
            if each.id == seen:
                return

    def _make_tags(self, names: Sequence[str], snapshot: str) -> None:
        import icechunk

        for name in names:
            try:
                self._repository.create_tag(name, snapshot)
            except icechunk.IcechunkError as error:
                if "tag already exists" not in str(error):  # one that was deleted counts as there
                    raise
                log.warning("a tag that was deleted cannot be made again", tag=name)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Checks the lease; says so if another run has taken the branch away.

        Raises:
            RunLost: another run holds the output.
            Outage: the storage does not answer.
        """
        import icechunk

        self._fence.check()
        try:
            yield
        except icechunk.IcechunkError as error:
            if f"ref not found `{self._branch}`" in str(error):
                raise self._lost() from error
            raise version_error(self._url, error) or error from error
        except icechunk.ConflictError as error:
            raise self._lost() from error

    def _lost(self) -> RunLost:
        return RunLost(
            f"{self._url}: another run holds the output now; this run writes nothing more"
        )

    def fork(self) -> bytes:
        """Returns a fork of what was saved last, for `forked` in another process."""
        if not self._fork:
            with self._guarded():
                clean = self._repository.writable_session(self._branch)
            self._fork = pickle.dumps(clean.fork())
        return self._fork

    def merge(self, fork: bytes) -> None:
        """Takes what a process has written into a fork; `save` keeps it."""
        self._merged.append(pickle.loads(fork))  # noqa: S301

    def save(self, message: str, tags: Sequence[str] | None = None) -> None:
        """Commits what was written and merged; does nothing if that is nothing.

        Args:
            message: what was done, for the history.
            tags: tags that the state is to have; None if no reader is to see it.

        Raises:
            RunLost: another run holds the output.
            Outage: the storage does not answer.
        """
        with self._guarded():
            if self._merged:
                self._session.merge(*self._merged)
                self._merged = []
            if not self._session.has_uncommitted_changes:
                return
            told = None if tags is None else {TAGS: list(tags)}
            self._session.commit(message, metadata=told)
            self._session = self._repository.writable_session(self._branch)
            self._store, self._fork = self._session.store, b""

    def publish(self, message: str, tags: Sequence[str] = ()) -> None:
        """Commits what was written, and lets readers see the branch.

        Args:
            message: what was done, for the history.
            tags: names of tags for this state; one that exists gets a number behind it.

        Raises:
            RunLost: another run holds the output.
            Outage: the storage does not answer.
        """
        with self._guarded():
            there = self._repository.list_tags()
        names = [_unused(tag, there) for tag in tags]
        self.save(message, names)
        with self._guarded():
            before = self._repository.lookup_branch(MAIN)
            tip = self._repository.lookup_branch(self._branch)
            if tip != before:
                self._make_tags(names, tip)
                self._repository.reset_branch(MAIN, tip, from_snapshot_id=before)

    def end(self) -> None:
        """Removes the branch; the store is of no use any more."""
        with self._guarded():
            self._repository.delete_branch(self._branch)


def forked(fork: bytes) -> icechunk.ForkSession:
    """Returns the session of a fork, which has a zarr store; it is pickled to be merged."""
    session: icechunk.ForkSession = pickle.loads(fork)  # noqa: S301
    return session


def read_store(url: str, version: Version, *, unfinished: bool = False) -> Any:
    """Returns the zarr store of a state of a result, for reading.

    Args:
        url: address of the result.
        version: the state.
        unfinished: whether to take the branch of a run that has not ended, if there is one, in
            place of the last state that readers see.

    Raises:
        FileNotFoundError: there is no repository.
        OutputError: there is no such state.
        Outage: the storage does not answer.
    """
    icechunk = _icechunk()
    repository = _open(url)
    with version_errors(url):
        if unfinished and version.is_last:
            runs = sorted(name for name in repository.list_branches() if name.startswith(RUN))
            return repository.readonly_session(runs[-1] if runs else MAIN).store
        try:
            found = _session(repository, version)
        except icechunk.IcechunkError as error:
            if version.is_last or not _is_unknown(error):
                raise
            found = None
        if found is None:
            raise OutputError(
                f"{url} has no {version.words}; there are {_told(repository, version)}"
            )
        return found.store


def _session(repository: icechunk.Repository, version: Version) -> icechunk.Session | None:
    """Returns a session that reads a state; None if readers have seen nothing by its moment."""
    if version.snapshot:
        return repository.readonly_session(snapshot_id=version.snapshot)
    if version.tag:
        return repository.readonly_session(tag=version.tag)
    if version.as_of is None:
        return repository.readonly_session(MAIN)
    for each in _published(repository):
        if each.written_at <= version.as_of:
            return repository.readonly_session(snapshot_id=each.id)
    return None


def _told(repository: icechunk.Repository, version: Version) -> str:
    """Returns some states that there are: for a moment the first ones, else the last ones."""
    states = _published(repository)
    known = list(states)[-KNOWN:] if version.as_of else list(itertools.islice(states, KNOWN))
    return (
        "; ".join(
            f"{each.id} of {each.written_at:%Y-%m-%dT%H:%M:%S.%fZ} ({each.message})"
            for each in known
        )
        or "none"
    )


def write_store(url: str, fence: Fence) -> BranchStore:
    """Returns the zarr store of a run's branch; creates the repository if there is none.

    Raises:
        RunLost: another run holds the output.
        Outage: the storage does not answer.
    """
    storage = _storage(url)
    found = _icechunk().Repository
    with version_errors(url):
        if found.exists(storage):
            return BranchStore(url, found.open(storage, _config()), fence)
        fence.check()
        repository = found.create(storage, _config())
        repository.save_config()
        return BranchStore(url, repository, fence)


def history(url: str) -> list[dict[str, Any]]:
    """Returns the states that readers have seen, the last one first.

    Each as its `snapshot`, `time`, `message` and `tags`.
    """
    repository = _open(url)
    with version_errors(url):
        tags = repository.list_tags()
        return [
            {
                "snapshot": each.id,
                "time": each.written_at,
                "message": each.message,
                "tags": [name for name in each.metadata[TAGS] if name in tags],
            }
            for each in _published(repository)
        ]


def _published(repository: icechunk.Repository) -> Iterator[icechunk.SnapshotInfo]:
    """Yields the snapshots that readers have seen, the last one first."""
    return (each for each in repository.ancestry(branch=MAIN) if TAGS in each.metadata)


def document(url: str, name: str) -> dict[str, Any]:
    """Returns a JSON document of a result as its runs have left it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
        Outage: the storage does not answer.
    """
    if not is_versioned(url):
        return dict(json.loads(open_blobs(url).get(name).data))
    store = read_store(url, LAST, unfinished=True)
    with version_errors(url):
        found = sync(store.get(name, default_buffer_prototype()))
    if found is None:
        raise FileNotFoundError(name)
    return dict(json.loads(found.to_bytes()))


@contextmanager
def version_errors(url: str) -> Iterator[None]:
    """Turns the errors of Icechunk into errors of this package."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        raised = version_error(url, error)
        if raised is None:
            raise
        raise raised from error


def version_error(url: str, error: Exception) -> PipelineError | None:
    """Returns the error to raise for one of Icechunk; None if it is not one."""
    if not type(error).__module__.startswith("icechunk"):
        return None
    reason = _reason(error)
    text = reason.lower()
    if any(word in text for word in ("forbidden", "accessdenied", "invalidaccesskey")):
        return OutputError(f"{url} refuses the access ({reason}); check the credentials")
    if any(word in text for word in BROKEN):
        return OutputError(
            f"{url} is damaged, or no repository that this version reads ({reason}); --overwrite "
            "begins anew"
        )
    return Outage(
        f"{url} does not answer: {reason}. Finished blocks are kept; run the same command again"
    )


def _reason(error: Exception) -> str:
    """Returns the first line of an error of Icechunk, whose text is drawn as a tree."""
    text = str(getattr(error, "message", "") or error)
    lines = [line.strip(" |x`->") for line in text.splitlines()]
    return next((line for line in lines if line), type(error).__name__)[:300]


def _is_unknown(error: Exception) -> bool:
    """Whether an error says that there is no such tag or snapshot."""
    text = str(error)
    return any(f"{what} `" in text for what in UNKNOWN)


def _unused(tag: str, there: set[str]) -> str:
    """Returns a name for a tag that no tag has: a tag never moves."""
    number, name = 1, tag
    while name in there:
        number += 1
        name = f"{tag}.{number}"
    return name


def _open(url: str) -> icechunk.Repository:
    """Opens an existing repository.

    Raises:
        FileNotFoundError: there is none.
    """
    found = _icechunk()
    storage = _storage(url)
    with version_errors(url):
        if not found.Repository.exists(storage):
            raise FileNotFoundError(url)
        return found.Repository.open(storage)


def _icechunk() -> Any:
    """Returns the module of Icechunk.

    Raises:
        JobError: it is not installed.
    """
    try:
        import icechunk
    except ImportError as error:
        raise JobError(
            "an output that begins with icechunk+ needs a package that is not installed: "
            "pip install 'earthgptx[icechunk]'"
        ) from error
    # It warns that a disk is not safe for writers beside one another; the lease lets one write.
    icechunk.set_logs_filter("icechunk=error")
    return icechunk


def _config() -> icechunk.RepositoryConfig:
    import icechunk

    config = icechunk.RepositoryConfig.default()
    split: Any = {
        icechunk.ManifestSplitCondition.AnyArray(): {
            icechunk.ManifestSplitDimCondition.DimensionName("time"): SLICES_A_MANIFEST
        }
    }
    config.manifest = icechunk.ManifestConfig(
        splitting=icechunk.ManifestSplittingConfig.from_dict(split)
    )
    return config


def _storage(url: str) -> Any:
    """Returns where Icechunk keeps a repository.

    Raises:
        OutputError: Icechunk results are not kept there.
    """
    icechunk = _icechunk()
    address = plain(url)
    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        return icechunk.local_filesystem_storage(
            str(Path(rest if separator else address).resolve())
        )
    if scheme not in ("s3", "s3a"):
        raise OutputError(f"{url} cannot be used: Icechunk results go to a path or to s3://")
    bucket, _, prefix = rest.partition("/")
    from botocore.session import get_session

    settings = s3_settings()
    endpoint = settings.get("endpoint")
    known = get_session().get_credentials() is not None
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=settings.get("region"),
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=bool(endpoint),
        anonymous=None if known else True,
        get_credentials=_credentials if known else None,
    )


def _credentials() -> icechunk.S3StaticCredentials:
    """Asks botocore for credentials, as other S3 clients do: environment, profiles, SSO, roles."""
    import icechunk
    from botocore.session import get_session

    found = get_session().get_credentials()
    assert found is not None, "else the storage is anonymous"
    frozen = found.get_frozen_credentials()
    return icechunk.S3StaticCredentials(
        access_key_id=frozen.access_key,
        secret_access_key=frozen.secret_key,
        session_token=frozen.token,
        expires_after=getattr(found, "_expiry_time", None),
    )
