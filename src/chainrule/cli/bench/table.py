"""A record as tables and sentences, for a terminal or in Markdown, in one language.

Knows records; measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...language import sentence
from ..report import aligned
from .engines import ENGINES, OURS
from .growth import COMPILED
from .machine import FOREIGN
from .record import ABSENT, DISAGREES, FAILED, MEASURED
from .workloads import Workload

Record = Mapping[str, Any]

_SHOWN = {**{name: one.shown for name, one in ENGINES.items()}, "scikit-learn": "scikit-learn"}
_BAR = 40


@dataclass(frozen=True)
class Table:
    """A title, heads of columns, and rows of texts."""

    title: str
    heads: list[str]
    rows: list[list[str]]

    def text(self) -> list[str]:
        """Lines for a terminal."""
        return [self.title, *(f"  {line}" for line in aligned([self.heads, *self.rows]))]

    def markdown(self) -> list[str]:
        """Lines of a page."""
        rule = "|" + "---|" * len(self.heads)
        return [f"**{self.title}**", "", _row(self.heads), rule, *map(_row, self.rows)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


class Teller:
    """Says a record in one language."""

    def __init__(self, language: str) -> None:
        self._language = language

    def say(self, key: str, **values: Any) -> str:
        """A sentence of the catalogue's `[bench]`."""
        return sentence(f"bench.{key}", self._language, **values)

    # ------------------------------------------------------------------------------- what was measured on

    def machine(self, record: Record) -> list[str]:
        """Processor, threads, versions."""
        facts = record["machine"]
        versions = {"chainrule": facts["chainrule"], **facts["packages"]}
        installed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        lines = [
            self.say(
                "machine", processor=facts["processor"], threads=facts["threads"], system=facts["system"]
            )
        ]
        lines.append(f"{facts['python']}, {installed}")
        return lines if facts["compiled"] else [*lines, self.say("not_compiled")]

    def disturbed(self, parts: Iterable[tuple[str, Record]]) -> list[str]:
        """A sentence for each (name, part) beside which something else ran; one if nobody knows."""
        found = []
        for name, part in parts:
            load = part["load"]
            if load is None:
                found.append(self.say("load_unknown", name=name))
            elif load["disturbed"]:
                found.append(
                    self.say("disturbed", name=name, share=load["foreign"] + load["stolen"], most=FOREIGN)
                )
        return found

    # ------------------------------------------------------------------------------- tables of workloads

    def workloads(self, record: Record) -> list[Table]:
        """A table for calls, one for epochs, one for starts and memory: what of it was measured."""
        parts = record.get("workloads", [])
        if not parts:
            return []
        found = [self._times(parts, "call")]
        if any("epoch" in one["ratios"] for one in parts):
            found.append(self._times(parts, "epoch"))
        if any("fresh" in engine for one in parts for engine in one["engines"].values()):
            found.append(self._fresh(parts))
        found.append(self._floors(parts))
        return found

    def _times(self, parts: list[Record], way: str) -> Table:
        engines = list(dict.fromkeys(name for one in parts for name in one["engines"]))
        rows = []
        for one in parts:
            cells = [self._named(one)]
            cells += [self._time(one["engines"].get(name), way) for name in engines]
            found = one["ratios"].get(way)
            cells.append("" if found is None else _times(found))
            cells.append(duration(_floor(one, way)))
            rows.append(cells)
        heads = [
            self.say("workload"),
            *(_SHOWN[name] for name in engines),
            self.say("ratio"),
            self.say("floor"),
        ]
        return Table(self.say(f"title_{way}"), heads, rows)

    def _named(self, one: Record) -> str:
        mark = " †" if one["load"] is not None and one["load"]["disturbed"] else ""
        return f"{one['workload']['name']}{mark}"

    def _time(self, engine: Record | None, way: str) -> str:
        if engine is None:
            return ""
        if engine["status"] != MEASURED:
            return self.say(_STATUS[engine["status"]])
        found = engine[way]
        low, high = found["quartiles"]
        return f"{duration(found['median'])} ({duration(low, found['median'])}…{duration(high, found['median'])})"

    def _fresh(self, parts: list[Record]) -> Table:
        rows = []
        for one in parts:
            for name, engine in one["engines"].items():
                if "fresh" in engine:
                    rows.append([self._named(one), _SHOWN[name], *self._start(engine["fresh"])])
        heads = ["workload", "engine", "import", "first_cold", "first_cached", "peak", "above_import"]
        return Table(self.say("title_fresh"), [self.say(head) for head in heads], rows)

    def _start(self, answers: list[Record]) -> list[str]:
        cold, again = answers
        if "failed" in cold or "failed" in again:
            return [self.say("failed"), "", "", "", ""]
        cells = [duration(cold["import"]), duration(cold["first_step"]), duration(again["first_step"])]
        for name in ("peak", "above_import"):
            known = cold["memory"] is not None
            cells.append(f"{cold['memory'][name] / 1e6:.0f} MB" if known else self.say("unknown"))
        return cells

    def _floors(self, parts: list[Record]) -> Table:
        rows = []
        for one in parts:
            floor, ours = one["floor"], one["engines"].get(OURS, {})
            rows.append([
                self._named(one), duration(floor["seconds"]),
                f"{ours['call']['median'] / floor['seconds']:.2g}x" if "call" in ours else "",
                *(f"{floor['products'][who] / 1e9:.0f}" for who in ("chainrule", "numpy")),
                *(f"{floor['memory'][who] / 1e9:.0f}" for who in ("chainrule", "numpy")),
                duration(floor["call"]),
            ])  # fmt: skip
        heads = ["workload", "floor", "above_floor", "products_ours", "products_numpy", "memory_ours",
                 "memory_numpy", "one_call"]  # fmt: skip
        return Table(self.say("title_floor"), [self.say(head) for head in heads], rows)

    # ------------------------------------------------------------------------------- sentences

    def notes(self, record: Record) -> list[str]:
        """What the workloads are, what could not be measured, and what was disturbed."""
        parts = record.get("workloads", [])
        lines = [f"{one['workload']['name']}: {_described(one)}" for one in parts]
        for one in parts:
            for name, engine in one["engines"].items():
                values = {"name": one["workload"]["name"], "engine": _SHOWN[name]}
                if engine["status"] == FAILED:
                    lines.append(self.say("why_failed", reason=engine["reason"], **values))
                elif engine["status"] == DISAGREES:
                    lines.append(self.say("why_disagrees", apart=engine["apart"], **values))
        how = {
            _SHOWN[name]: engine["epoch"]["how"]
            for one in parts
            for name, engine in one["engines"].items()
            if "epoch" in engine
        }
        if how:
            ways = ", ".join(f"{name}: {self.say(_HOW[way])}" for name, way in how.items())
            lines.append(self.say("epoch_how", ways=ways))
        return [*lines, *self.disturbed((one["workload"]["name"], one) for one in parts)]

    def losses(self, record: Record) -> list[str]:
        """Where somebody is better than we are, in the order of the tables; one sentence if it is nowhere."""
        found = []
        for one in record.get("workloads", []):
            name, engines = one["workload"]["name"], one["engines"]
            for way, compared in one["ratios"].items():
                if compared is not None and compared["median"] < 1:
                    rival = _SHOWN[compared["best_rival"]]
                    found.append(
                        self.say(f"loses_{way}", name=name, rival=rival, ratio=1 / compared["median"])
                    )
            found += self._lost_starts(name, engines)
        return found or [self.say("loses_nowhere")]

    def _lost_starts(self, name: str, engines: Mapping[str, Record]) -> list[str]:
        """First steps and memory in which a rival is better."""
        answers = {
            who: one["fresh"] for who, one in engines.items()
            if "fresh" in one and not any("failed" in each for each in one["fresh"])
        }  # fmt: skip
        if OURS not in answers:
            return []
        kinds: dict[str, Callable[[list[Record]], float | None]] = {
            "loses_cold": lambda each: each[0]["first_step"],
            "loses_cached": lambda each: each[1]["first_step"],
            "loses_peak": lambda each: each[0]["memory"] and each[0]["memory"]["peak"],
            "loses_above": lambda each: each[0]["memory"] and each[0]["memory"]["above_import"],
        }
        found = []
        for key, of in kinds.items():
            known = {who: value for who, each in answers.items() if (value := of(each)) is not None}
            if OURS not in known:
                continue
            best = min(known, key=lambda who: known[who])
            if best != OURS:
                shown = _megabytes if key in ("loses_peak", "loses_above") else duration
                found.append(
                    self.say(
                        key, name=name, rival=_SHOWN[best], ours=shown(known[OURS]), theirs=shown(known[best])
                    )
                )
        return found

    # ------------------------------------------------------------------------------- growth, scikit-learn

    def marks(self, record: Record) -> list[str]:
        """What was disturbed of growth and scikit-learn's network."""
        parts = [(self.say(one["way"]), one) for one in record.get("growth", ())]
        found = record.get("sklearn")
        if found is not None and found["status"] == MEASURED:
            parts.append((_SHOWN["scikit-learn"], found))
        return self.disturbed(parts)

    def growth(self, record: Record) -> list[Table]:
        """A table with bars for each way of growing."""
        return [self._growth(one) for one in record.get("growth", [])]

    def _growth(self, one: Record) -> Table:
        line, points = one["line"], one["points"]
        longest = max(point["median"] for point in points)
        compiling = max(point["first"]["seconds"] for point in points)
        deep = one["way"] in COMPILED
        rows = []
        for point in points:
            fitted = line["start"] + line["each"] * point["size"]
            row = [
                point["workload"]["name"].split()[-1], duration(point["median"]), duration(fitted),
                _bar(point["median"] / longest),
            ]  # fmt: skip
            if deep:
                first = point["first"]
                row += [duration(first["seconds"]), duration(first["machine_code"]), str(first["functions"]),
                        _bar(first["seconds"] / compiling)]  # fmt: skip
            rows.append(row)
        heads = [
            one["way"],
            "step",
            "line",
            "bar",
            *(["first_cold", "machine_code", "functions", "bar"] if deep else []),
        ]
        mark = " †" if one["load"] is not None and one["load"]["disturbed"] else ""
        title = self.say(
            "title_growth", way=self.say(one["way"]), explained=line["explained"], worst=line["worst"]
        )
        return Table(title + mark, [self.say(head) for head in heads], rows)

    def scikit(self, record: Record) -> list[Table]:
        """Both networks on digits."""
        found = record.get("sklearn")
        if found is None:
            return []
        if found["status"] == ABSENT:
            return [Table(self.say("title_sklearn_absent"), [], [])]
        rows = []
        for name, one in found["engines"].items():
            low, high = one["quartiles"]
            spread = f"{duration(low, one['median'])}…{duration(high, one['median'])}"
            rows.append(
                [
                    _SHOWN[name],
                    f"{duration(one['median'])} ({spread})",
                    duration(one["whole"]),
                    f"{one['accuracy']:.1%}",
                ]
            )
        rows[-1].append(_times(found["ratio"]))
        rows[0].append("")
        epochs = next(iter(found["engines"].values()))["epochs"]
        title = self.say(
            "title_sklearn", sizes="-".join(map(str, found["sizes"])), batch=found["batch"], rows=found["rows"],
            epochs=epochs,
        )  # fmt: skip
        mark = " †" if found["load"] is not None and found["load"]["disturbed"] else ""
        heads = [self.say(head) for head in ("engine", "epoch", "whole", "accuracy", "ratio")]
        return [Table(title + mark, heads, rows)]


_STATUS = {ABSENT: "absent", FAILED: "failed", DISAGREES: "disagrees"}
_HOW = {"calls": "how_calls", "lax.scan": "how_scan", "one call": "how_one_call"}


def _floor(one: Record, way: str) -> float:
    """The floor of a step; in an epoch the call counts once for all its steps."""
    floor = one["floor"]
    saved = floor["call"] * (1 - 1 / one["steps_in_epoch"]) if way == "epoch" else 0.0
    return float(floor["seconds"]) - saved


def _described(one: Record) -> str:
    return Workload.from_json(one["workload"]).described


def _times(found: Record) -> str:
    low, high = found["quartiles"]
    who = f" ({_SHOWN[found['best_rival']]})" if "best_rival" in found else ""
    return f"{found['median']:.2f}x [{low:.2f}…{high:.2f}]{who}"


def _bar(share: float) -> str:
    return "█" * max(1, round(share * _BAR))


def _megabytes(amount: float) -> str:
    return f"{amount / 1e6:.0f} MB"


def duration(seconds: float, like: float | None = None) -> str:
    """Seconds with three digits in a unit that suits them, or in the unit that suits `like` and without its name.

    >>> duration(0.00123), duration(12e-6), duration(1.5), duration(12e-6, 1e-3)
    ('1.23 ms', '12.0 µs', '1.50 s', '0.012')
    """
    reference = seconds if like is None else like
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if reference * factor >= 1 or unit == "µs":
            amount = seconds * factor
            break
    text = (
        f"{amount:.0f}"
        if amount >= 100
        else f"{amount:.3g}"
        if amount < 1
        else f"{amount:.{2 - (amount >= 10)}f}"
    )
    return text if like is not None else f"{text} {unit}"
