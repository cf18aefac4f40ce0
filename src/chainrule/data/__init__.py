"""Data for training: tables from files (`tabular`). Imports nothing heavy until a table is read."""

from __future__ import annotations

from .tabular import (
    BUNDLED,
    Column,
    Fact,
    Preparation,
    Reading,
    Schema,
    Table,
    Target,
    accuracy,
    baseline,
    bundled,
    infer_schema,
    mean_absolute_error,
    r2,
    read_table,
    score,
    split,
    split_three,
    write_table,
)

__all__ = [
    "BUNDLED",
    "Column",
    "Fact",
    "Preparation",
    "Reading",
    "Schema",
    "Table",
    "Target",
    "accuracy",
    "baseline",
    "bundled",
    "infer_schema",
    "mean_absolute_error",
    "r2",
    "read_table",
    "score",
    "split",
    "split_three",
    "write_table",
]
