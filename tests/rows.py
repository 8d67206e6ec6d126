"""Rows of the status table and of a manifest, for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow

from pix2pix import manifest

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
