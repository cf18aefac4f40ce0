"""`chainrule bench`: a whole training step, ours and that of rivals, timed in turns on this machine.

    chainrule bench --quick
    chainrule bench --sizes 127,101,11 --batch 61 --dtype float64 --epoch

Reads the command line and prints; what is measured is in `record`, `growth` and `scikit`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from ...files import replace_file
from ...train.files import readable
from ..outputs import refuse_own_files
from ..usage import Parser, UsageError, nearest
from . import growth, record, scikit
from .engines import ENGINES
from .table import Table, Teller
from .timing import QUICK, Effort
from .workloads import DTYPES, OPTIMIZERS, STANDARD, WORKLOADS, Layered, Workload

_USUAL = ("chainrule", "pytorch", "jax")
_OF_SIZES = ("batch", "dtype", "optimizer", "norm")
_BATCH = 32


def add_arguments(parser: Parser) -> None:
    """The options of `chainrule bench`."""
    parser.epilog = parser.say("option.bench_codes")
    known = ", ".join(WORKLOADS)
    parser.add("workloads", about="bench_workloads", nargs="*", metavar="NAME", values={"known": known})
    parser.add("--sizes", about="bench_sizes", metavar="64,32,10")
    parser.add("--batch", about="bench_batch", metavar="N", values={"default": _BATCH})
    parser.add("--dtype", about="bench_dtype", metavar="|".join(DTYPES), values={"default": DTYPES[0]})
    parser.add(
        "--optimizer", about="bench_optimizer", metavar="|".join(OPTIMIZERS), values={"default": "adam"}
    )
    parser.add("--norm", about="bench_norm", action="store_true")
    engines = {"known": ", ".join(ENGINES), "default": ",".join(_USUAL)}
    parser.add("--engines", about="bench_engines", metavar="NAMES", values=engines)
    parser.add("--torch-compile", about="bench_torch_compile", action="store_true")
    parser.add("--epoch", about="bench_epoch", action="store_true")
    parser.add("--growth", about="bench_growth", action="append", metavar="|".join((*growth.WAYS, "all")))
    parser.add("--sklearn", about="bench_sklearn", action="store_true")
    parser.add("--rounds", about="bench_rounds", metavar="N", values={"default": Effort().rounds})
    parser.add("--quick", about="bench_quick", action="store_true")
    parser.add("--json", about="json", action="store_true")
    parser.add("--out", about="bench_out", metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 if an engine computed something else than we do."""
    workloads, engines, ways, effort = _asked(arguments)
    place = _place(arguments.out)
    teller = Teller(arguments.lang)
    found = _measure(arguments, workloads, engines, ways, effort, teller)
    text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    if place is not None:
        try:
            replace_file(place, text.encode())
        except OSError as failure:
            raise UsageError("cannot_write", path=readable(str(place)), reason=failure.strerror) from failure
    if arguments.json:
        print(text, end="")
    else:
        _print(found, teller)
    return 1 if record.findings(found) else 0


def _measure(
    arguments: argparse.Namespace, workloads: list[Workload], engines: list[str], ways: list[str], effort: Effort,
    teller: Teller,
) -> dict[str, Any]:  # fmt: skip
    """The record of all that is asked for."""

    def say(key: str, **values: Any) -> None:
        if not arguments.json:
            print(teller.say(key, **values), file=sys.stderr, flush=True)

    found = record.measure(workloads, engines, effort, arguments.epoch, not arguments.quick, say)
    if ways:
        found["growth"] = []
        for way in ways:
            say("measuring_growth", way=teller.say(way))
            found["growth"].append(growth.measure(way, effort, arguments.quick))
    if arguments.sklearn:
        say("measuring_sklearn")
        found["sklearn"] = scikit.measure(arguments.quick)
    return found


def _print(found: dict[str, Any], teller: Teller) -> None:
    parts: list[list[str]] = [teller.machine(found)]
    if found["workloads"]:
        parts.append(teller.notes(found))
    tables: list[Table] = [*teller.workloads(found), *teller.growth(found), *teller.scikit(found)]
    parts += [table.text() for table in tables]
    parts += [teller.marks(found)] if teller.marks(found) else []
    if any(compared for one in found["workloads"] for compared in one["ratios"].values()):
        parts.append([teller.say("where_we_lose"), *(f"  {line}" for line in teller.losses(found))])
    print("\n\n".join("\n".join(part) for part in parts))


# ------------------------------------------------------------------------------- what is asked


def _asked(arguments: argparse.Namespace) -> tuple[list[Workload], list[str], list[str], Effort]:
    """Workloads, engines, ways of growing, effort. Raises UsageError for what has no meaning."""
    workloads = [_choice("NAME", name, WORKLOADS) for name in arguments.workloads]
    own = _own_workload(arguments)
    if own is not None:
        workloads.append(own)
    ways: list[str] = []
    for way in arguments.growth or ():
        ways += (
            growth.WAYS if way == "all" else [_choice("--growth", way, dict(zip(growth.WAYS, growth.WAYS)))]
        )
    if not workloads and not ways and not arguments.sklearn:
        workloads = [WORKLOADS[name] for name in STANDARD]
    names = (arguments.engines or ",".join(_USUAL)).split(",")
    engines = [name.strip() for name in names if name.strip() and _choice("--engines", name.strip(), ENGINES)]
    if arguments.torch_compile:
        engines.append("torch_compile")
    effort = QUICK if arguments.quick else Effort()
    if arguments.rounds is not None:
        effort = Effort(_whole("--rounds", arguments.rounds, 1), effort.seconds)
    return list(dict.fromkeys(workloads)), list(dict.fromkeys(engines)), list(dict.fromkeys(ways)), effort


def _own_workload(arguments: argparse.Namespace) -> Workload | None:
    """The workload of `--sizes`."""
    if arguments.sizes is None:
        for name in _OF_SIZES:
            if getattr(arguments, name) not in (None, False):
                raise UsageError("only_with_sizes", option=f"--{name}")
        return None
    parts = arguments.sizes.split(",")
    if len(parts) < 2 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise UsageError("bad_sizes", value=repr(readable(arguments.sizes)))
    sizes = tuple(map(int, parts))
    batch = _whole("--batch", arguments.batch or str(_BATCH), 2 if arguments.norm else 1)
    dtype = _choice("--dtype", arguments.dtype or DTYPES[0], dict(zip(DTYPES, DTYPES)))
    optimizer = _choice("--optimizer", arguments.optimizer or "adam", dict(zip(OPTIMIZERS, OPTIMIZERS)))
    return Layered("sizes", batch, dtype, optimizer, sizes=sizes, norm=arguments.norm)


def _choice(option: str, name: str, known: Any) -> Any:
    if name not in known:
        choices = ", ".join(known)
        raise UsageError(
            "no_choice",
            name=option,
            choices=choices,
            value=repr(readable(name)),
            advice=nearest(name, list(known)),
        )
    return known[name]


def _whole(option: str, text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise UsageError("no_whole", name=option, value=repr(readable(text))) from None
    if number < least:
        raise UsageError("too_small", name=option, least=least, value=number)
    return number


def _place(out: str | None) -> Path | None:
    """Where the record goes; known to be possible before minutes are spent."""
    if out is None:
        return None
    refuse_own_files("--out", out)
    place = Path(out)
    if place.is_dir() or not os.access(place.parent, os.W_OK):
        raise UsageError("cannot_write", path=readable(out), reason=os.strerror(21 if place.is_dir() else 2))
    return place
