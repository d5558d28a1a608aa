"""Parquet files, as Hugging Face serves data sets, read as lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.errors import InputError, one_line

MAGIC = b"PAR1"
BATCH_ROWS = 256


def json_lines(path: Path, data: bytes, max_bytes: int) -> str:
    """Return the rows of a Parquet file as JSON objects, one per line.

    Raises:
        InputError: the data is not a whole Parquet file, or its rows have more than `max_bytes`.
    """
    import pyarrow  # takes a third of a second, and few sets are Parquet
    from pyarrow import parquet

    lines: list[str] = []
    size = 0
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        groups = (file.metadata.row_group(n) for n in range(file.num_row_groups))
        if sum(group.total_byte_size for group in groups) > max_bytes:
            raise InputError(f"{path}: its rows have more than the {max_bytes} bytes allowed")
        for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            for row in batch.to_pylist():
                line = json.dumps(row, ensure_ascii=False, default=str)
                size += len(line)
                if size > max_bytes:
                    raise InputError(
                        f"{path}: its rows have more than the {max_bytes} bytes allowed"
                    )
                lines.append(line)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = one_line(str(error))
        raise InputError(f"{path}: not a whole Parquet file: {reason[:120]}") from None
    return "\n".join(lines)
