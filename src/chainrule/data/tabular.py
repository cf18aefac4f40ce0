"""Tables: from a CSV file to arrays that a network can learn from, and back to a file of predictions.

The door to this room; each step is one module, and none imports a later one:

    reading.read_table → inference.infer_schema → splitting.split → preparation.Preparation → (a network)
    → Preparation.decode_target → writing.write_table

>>> from chainrule.data.tabular import bundled, infer_schema, split, Preparation, baseline
>>> frame, reading = bundled("iris")
>>> schema = infer_schema(frame, target="species")
>>> train, test = split(frame, "species", schema.target.task)
>>> preparation = Preparation.fit(frame.iloc[train], "species", schema=schema)
>>> x, y = preparation.transform(frame.iloc[train]), preparation.encode_target(frame["species"].iloc[train])
>>> x.shape, x.dtype.name, preparation.decode_target(y[:1])[0]
((120, 4), 'float32', 'setosa')

Knows nothing of tensors, graphs and networks. pandas and scikit-learn are loaded on first use.
"""

from __future__ import annotations

from .bundled import BUNDLED, bundled
from .facts import Fact
from .inference import infer_schema
from .preparation import Preparation
from .reading import Reading, Table, read_table
from .schema import Column, Schema, Target
from .splitting import accuracy, baseline, mean_absolute_error, r2, score, split, split_three
from .writing import write_table

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
