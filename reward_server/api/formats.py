"""Rows as JSON lines, CSV or Parquet, streamed: nothing is held but the rows of one batch."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from shared.schema import Json

Format = Literal["jsonl", "csv", "parquet"]
MEDIA_TYPES: Final[Mapping[Format, str]] = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
BATCH: Final = 1000
"""Rows of one Parquet row group without images."""
IMAGE_BATCH: Final = 32
"""The same with images: a few megabytes."""

ColumnType = Literal["string", "float", "int", "bool", "image"]
Columns = Mapping[str, ColumnType]
"""Names in order, with their types; an image's value is the hash, looked up as it is written."""


class ParquetUnavailable(Exception):
    """This server cannot write Parquet."""

    def __init__(self) -> None:
        super().__init__(
            "format=parquet needs pyarrow on the server: pip install pyarrow (the extra 'export'); "
            "jsonl and csv need nothing"
        )


def lines(rows: Iterable[Json]) -> Iterator[bytes]:
    """One JSON object per line."""
    for row in rows:
        yield (json.dumps(row, ensure_ascii=False) + "\n").encode()


def table(rows: Iterable[Json], columns: Columns) -> Iterator[bytes]:
    """CSV (RFC 4180) with a header; what is missing is an empty field, truth is true or false."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_field(row[name]) for name in columns])
        if buffer.tell() > 65536:
            yield _drain(buffer)
    yield _drain(buffer)


def _field(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _drain(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()


def check_parquet() -> None:
    """Find out before the answer begins whether Parquet can be written.

    Raises:
        ParquetUnavailable: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ParquetUnavailable from None


def parquet(
    rows: Iterable[Json], columns: Columns, image: Callable[[str], bytes] | None = None
) -> Iterator[bytes]:
    """Parquet whose image columns Hugging Face ``datasets`` decodes by itself.

    Args:
        rows: one value per column; an image is given by its hash.
        columns: names and types.
        image: bytes of the file stored under a hash; needed if there is an image column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(columns)
    sink = _Sink()
    pictures = [name for name, kind in columns.items() if kind == "image"]
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in _batches(rows, IMAGE_BATCH if pictures else BATCH):
            data: list[dict[str, Any]] = [dict(row) for row in batch]
            for row in data:
                for name in pictures:
                    assert image is not None
                    row[name] = {"bytes": image(row[name]), "path": f"{row[name]}.png"}
            writer.write_table(pa.Table.from_pylist(data, schema))
            yield sink.take()
    yield sink.take()


def _schema(columns: Columns) -> Any:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "float": pa.float64(),
        "int": pa.int64(),
        "bool": pa.bool_(),
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    }
    names = {"string": "string", "float": "float64", "int": "int64", "bool": "bool"}
    features: dict[str, Any] = {
        name: {"_type": "Image"} if kind == "image" else {"dtype": names[kind], "_type": "Value"}
        for name, kind in columns.items()
    }
    # Where `datasets` looks for types that Parquet has no name for.
    notes = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([(name, types[kind]) for name, kind in columns.items()], metadata=notes)


def _batches(rows: Iterable[Json], n: int) -> Iterator[Sequence[Json]]:
    left = iter(rows)
    while batch := list(itertools.islice(left, n)):
        yield batch


class _Sink(io.RawIOBase):
    """Keeps what was written until it is taken, and knows how much it was in all."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def write(self, data: Any) -> int:
        """Keep a copy of ``data``."""
        self._parts.append(bytes(data))
        self._written += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        """Bytes written so far."""
        return self._written

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
