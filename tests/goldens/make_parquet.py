#!/usr/bin/env python3
"""Makes tests/data/tables/: one small table as Parquet, and what its rows are as JSON lines, for tests/data/records_test.cc.

Made with pyarrow 26.0.1.
"""
import datetime
import decimal
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

folder = pathlib.Path(__file__).parent.parent / "data" / "tables"
folder.mkdir(exist_ok=True)
table = pa.table(
    {
        "text": pa.array(["a fine film", "naïve \"quotes\"\nand lines", None]),
        "large": pa.array(["x", "y", "z"], pa.large_string()),
        "view": pa.array(["v", "a string that is no short one", None], pa.string_view()),
        "label": pa.array([1, -1, None], pa.int64()),
        "byte": pa.array([1, 2, 255], pa.uint8()),
        "score": pa.array([0.5, 2.0, None], pa.float64()),
        "good": pa.array([True, False, None]),
        "class": pa.array(["yes", "no", "yes"]).dictionary_encode(),
        "answers": pa.array([["one", "two"], [], None], pa.list_(pa.string())),
        "nested": pa.array([{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None],
                           pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))])),
        "day": pa.array([datetime.date(2024, 2, 29)] * 3),
        "price": pa.array([decimal.Decimal("1.50")] * 3),
        "image": pa.array([b"\x89PNG", b"", None], pa.binary()),
    }
)
pq.write_table(table, folder / "small.parquet", row_group_size=2, compression="zstd")
rows = table.to_pylist()
for row in rows:
    row["day"], row["price"] = str(row["day"]), str(row["price"])
    del row["image"]
(folder / "small.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
