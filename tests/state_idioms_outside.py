"""The same for what lies outside of Python's objects: files, queues, tables in C, context variables, caches."""

from __future__ import annotations

import contextvars
import csv
import functools
import gc
import io
import os
import queue
import sqlite3
import tempfile
import threading
import types
import zlib

import chainrule as cr
from chainrule import nn
from state_idioms import idiom


@idiom(answers=("refused",))
def rows_written_by_csv():
    buffer = io.StringIO()
    writer = csv.writer(buffer)

    def step(x):
        writer.writerow([1, 2])
        return x

    return step, lambda i: None, buffer.getvalue


@idiom(answers=("refused",))
def queue_in_c():
    waiting = queue.SimpleQueue()

    def step(x):
        waiting.put(1)
        return x

    return step, lambda i: None, waiting.qsize


@idiom(answers=("refused",))
def table_of_a_database():
    table = sqlite3.connect(":memory:")
    table.execute("create table t(a)")

    def step(x):
        table.execute("insert into t values (1)")
        return x

    return step, lambda i: None, lambda: None


@idiom(answers=("refused",))
def compressor():
    packed = zlib.compressobj()

    def step(x):
        packed.compress(b"a")
        return x

    return step, lambda i: None, lambda: None


@idiom(answers=("refused",))
def whether_a_file_is_there():
    path = os.path.join(tempfile.mkdtemp(), "k")

    def change(i):
        if i == 3:
            open(path, "w").close()

    return lambda x: x * 2.0 if os.path.exists(path) else x * 3.0, change, lambda: None


@idiom(answers=("refused",))
def whether_memory_is_collected():
    return lambda x: x * 2.0 if gc.isenabled() else x * 3.0, lambda i: None, lambda: None


@idiom
def variable_of_the_context_that_is_set():
    counter = contextvars.ContextVar("counter", default=1.0)

    def step(x):
        counter.set(counter.get() + 1.0)
        return x * counter.get()

    return step, lambda i: counter.set(10.0) if i == 3 else None, lambda: counter.get()


@idiom
def tensor_in_a_variable_of_the_context():
    hidden = contextvars.ContextVar("hidden")

    def step(x):
        before = hidden.get(None)
        hidden.set(x if before is None else before * 0.5 + x)
        return hidden.get()

    return step, lambda i: hidden.set(cr.ones(2)) if i == 3 else None, lambda: hidden.get()


@idiom
def variable_of_a_thread():
    local = threading.local()
    local.n = 0

    def step(x):
        local.n += 1
        return x * local.n

    return step, lambda i: None, lambda: local.n


@idiom(answers=("equal", "refused"))
def cache_that_is_cleared():
    values = {"t": 2.0}

    @functools.lru_cache
    def table(n):
        return values["t"] * n

    def change(i):
        if i == 1:
            values["t"] = 5.0  # what is remembered stays
        if i == 3:
            table.cache_clear()

    return lambda x: x * table(3), change, lambda: None


@idiom
def lock_around_a_counter():
    lock, o = threading.Lock(), types.SimpleNamespace(n=0)

    def step(x):
        with lock:
            o.n += 1
        return x * o.n

    return step, lambda i: None, lambda: o.n


@idiom
def attribute_of_a_layer_past_its_setter():
    layer = nn.Dropout(0.0)
    layer.k = 2.0
    return (
        lambda x: layer(x) * layer.k,
        lambda i: vars(layer).update(k=i + 3.0) if i > 1 else None,
        lambda: layer.k,
    )


@idiom
def environment_that_is_written():
    os.environ.pop("CHAINRULE_IDIOM", None)

    def step(x):
        os.environ["CHAINRULE_IDIOM"] = os.environ.get("CHAINRULE_IDIOM", "") + "a"
        return x * len(os.environ["CHAINRULE_IDIOM"])

    return step, lambda i: os.environ.pop("CHAINRULE_IDIOM") if i == 2 else None, lambda: None
