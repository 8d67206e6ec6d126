"""Rows of the status table and of a manifest, for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pyarrow

from pix2pix import manifest, parquet, table

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(name: str, seconds: int = 0, **values: Any) -> dict[str, Any]:
    values = {"status": "denoised", "attempt": 1, "etag": "1", **values}
    if values["status"] == "failed":
        values.setdefault("failure_class", "undecodable")
    uri = f"s3://archive/{name}"
    return {
        "uri": uri,
        "relative_path": name,
        "size_bytes": 10,
        "id": manifest.image_id(uri, values["etag"]),
        "finished_at": START + timedelta(seconds=seconds),
        **values,
    }


def append_of_version_1(output: str, rows: list[dict[str, Any]]) -> str:
    """The URL of a new part of a status table as the version before `denoised` wrote it."""
    schema = pyarrow.schema([table.SCHEMA.field(name) for name in table.PLAIN])
    empty = dict.fromkeys(schema.names) | {"schema_version": 1}
    found = pyarrow.Table.from_pylist([empty | row for row in rows], schema=schema)
    url = f"{output}/status/part-0-{uuid4().hex}.parquet"
    parquet.write(url, found)
    return url


def listed(*images: tuple[str, str]) -> pyarrow.Table:
    rows = [
        {
            "uri": f"s3://archive/{name}",
            "relative_path": name,
            "size_bytes": 10,
            "etag": etag,
            "id": manifest.image_id(f"s3://archive/{name}", etag),
        }
        for name, etag in images
    ]
    return pyarrow.Table.from_pylist(rows, schema=manifest.SCHEMA)
