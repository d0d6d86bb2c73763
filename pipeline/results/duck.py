"""Asks DuckDB about the GeoParquet files of one or several results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa

from earthgptx.catalogs.redaction import redact
from earthgptx.pipeline.errors import JobError, Outage, OutputError
from earthgptx.pipeline.results.condition import quoted
from earthgptx.pipeline.results.object_table import Rows
from earthgptx.pipeline.storage.blobs import CLOUD
from earthgptx.pipeline.storage.cloud import file_system

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class ObjectFiles:
    """Files of the rows of a result, such as its objects."""

    result: str
    """URL of the result."""
    files: tuple[str, ...]
    """Their URLs or paths."""


def ask(files: Sequence[ObjectFiles], sql: str, rows: Rows) -> pa.Table:
    """Returns what DuckDB answers; `objects` in the SQL stands for the rows of all files."""
    import duckdb

    there = [each for each in files if each.files]
    sources = [
        f"SELECT *, {quoted(each.result)} AS result"  # noqa: S608
        f" FROM read_parquet([{', '.join(map(_file, each.files))}], hive_partitioning = false)"
        for each in there
    ]
    try:
        with _connection([file for each in there for file in each.files]) as connection:
            if there:
                sql = f"WITH objects AS ({' UNION ALL '.join(sources)}) {sql}"
            else:
                nothing = rows.schema.empty_table().append_column(
                    "result", pa.array([], pa.string())
                )
                connection.register("objects", nothing)
            return connection.execute(sql).to_arrow_table()
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException) as error:
        raise OutputError(
            f"a file of {rows.name} is missing, damaged, or of another version "
            f"({reason(error)}); run the job again, which writes it anew"
        ) from error
    except (duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        raise JobError(
            f"a condition cannot be asked of these {rows.name} ({reason(error)})"
        ) from error
    except duckdb.Error as error:  # of the file system of an object store
        raise Outage(
            f"the {rows.name} of {there[0].result if there else 'a result'} cannot be read now "
            f"({reason(error)}); try again later"
        ) from error


def reason(error: Exception) -> str:
    """Returns what DuckDB says is wrong, in a line without secrets."""
    return redact((str(error).splitlines() or [""])[0])


def _file(address: str) -> str:
    """Returns an address as an SQL literal of which DuckDB takes no character for a pattern."""
    return quoted(re.sub(r"[*?\[]", r"[\g<0>]", address))


def _connection(files: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """Returns a connection that can open the files."""
    remote = {file.partition("://")[0] for file in files if "://" in file}
    if not remote:
        return local().cursor()
    connection = connect()  # what the environment says of a store may change
    for scheme in remote:
        known = file_system(f"{scheme}://") if scheme in CLOUD else fsspec.filesystem(scheme)
        connection.register_filesystem(known)
    return connection


@cache
def local() -> duckdb.DuckDBPyConnection:
    """Returns the database of this process, which keeps what it knows of files on disks."""
    return connect()


def connect() -> duckdb.DuckDBPyConnection:
    """Returns a new database in memory that says times in UTC."""
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    return connection
