"""The settings of `chainrule train`: one list, from which options, `--set`, and the configuration file are made.

Every setting has a dotted key (`optim.lr`), by which a TOML file and `--set` know it; most have an option too (`--lr`).
The command line wins over the file, and both over the defaults.
Knows names, kinds and values; what they mean is known by `train.tabular`.
"""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..train.files import readable
from ..train.tabular import Settings
from .usage import Parser, UsageError, nearest

_DEFAULTS = Settings()


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting: its key, what it holds, its option if it has one, its default, and the bounds of a number.

    kind: "text", "path", "names", "widths", "whole", "number" or "choice".
    """

    key: str
    kind: str
    option: str | None = None
    default: Any = None
    least: float = -math.inf
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    above: bool = False

    @property
    def name(self) -> str:
        """The key without its room: `lr`."""
        return self.key.partition(".")[2]


SETTINGS = (
    Setting("data.table", "path"),
    Setting("data.target", "text", "--target", metavar="{column}"),
    Setting("data.task", "choice", "--task", "auto", choices=("auto", "classification", "regression")),
    Setting("data.skip", "names", "--skip", (), metavar="{column}"),
    Setting("data.category", "names", "--category", (), metavar="{column}"),
    Setting("data.encoding", "text", "--encoding", metavar="NAME"),
    Setting("data.test", "number", "--test", _DEFAULTS.test, 0, metavar="SHARE"),
    Setting("model.hidden", "widths", "--hidden", metavar="WIDTHS"),
    Setting("model.networks", "whole", "--networks", _DEFAULTS.networks, 1, metavar="N"),
    Setting("optim.lr", "number", "--lr", _DEFAULTS.learning_rate, 0, metavar="RATE", above=True),
    Setting("optim.weight_decay", "number", None, _DEFAULTS.weight_decay, 0),
    Setting("optim.label_smoothing", "number", None, _DEFAULTS.label_smoothing, 0),
    Setting("optim.batch_size", "whole", "--batch-size", None, 1, metavar="N"),
    Setting("train.epochs", "whole", "--epochs", _DEFAULTS.epochs, 1, metavar="N"),
    Setting("train.patience", "whole", "--patience", _DEFAULTS.patience, 1, metavar="N"),
    Setting("train.class_weight", "choice", "--class-weight", "none", choices=("none", "balanced")),
    Setting("train.seed", "whole", "--seed", _DEFAULTS.seed, 0, metavar="N"),
    Setting("train.checkpoint_seconds", "number", "--checkpoint-seconds", 30.0, 0, metavar="SECONDS"),
    Setting("validation.folds", "whole", "--folds", None, 2, metavar="N"),
    Setting("validation.repeats", "whole", "--repeats", None, 1, metavar="N"),
    Setting("run.out", "path", "--out", metavar="{file}"),
)
BY_KEY = {one.key: one for one in SETTINGS}

# What a demonstration has no use for.
_OF_TABLES = ("data.", "validation.")


def add_settings(parser: Parser, keys: Callable[[str], bool] = lambda key: True) -> None:
    """An option for each setting that has one, and `--set`."""
    for one in SETTINGS:
        if one.option is None or not keys(one.key):
            continue
        values = {"default": _shown(one.default)}
        options: dict[str, Any] = {"metavar": one.metavar or "|".join(one.choices)}
        if one.kind == "names":
            options["action"] = "append"
        parser.add(one.option, about=one.name, dest=one.key, default=None, values=values, **options)
    known = [one.key for one in SETTINGS if keys(one.key)]
    parser.add(
        "--set", about="set", action="append", metavar="KEY=VALUE", dest="assignments",
        values={"known": ", ".join(known)},
    )  # fmt: skip


def of_demo(key: str) -> bool:
    """Whether the setting means something where the table is given."""
    return not key.startswith(_OF_TABLES) and key != "train.class_weight"


def _shown(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


# ------------------------------------------------------------------------------------------- gathering


class Chosen:
    """The settings of one command: what was given, by key, and the defaults of the rest."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = dict(given)

    def __getitem__(self, key: str) -> Any:
        return self._given.get(key, BY_KEY[key].default)

    def __contains__(self, key: str) -> bool:
        return key in self._given

    @property
    def keys(self) -> list[str]:
        """What was given."""
        return list(self._given)

    def settings(self, without_test: bool = False) -> Settings:
        """Those of training. without_test: every row is trained on, because something else tells the score."""
        weight = self["train.class_weight"]
        return Settings(
            seed=self["train.seed"],
            epochs=self["train.epochs"],
            patience=self["train.patience"],
            learning_rate=self["optim.lr"],
            weight_decay=self["optim.weight_decay"],
            label_smoothing=self["optim.label_smoothing"],
            networks=self["model.networks"],
            test=0.0 if without_test else self["data.test"],
            hidden=self["model.hidden"],
            batch_size=self["optim.batch_size"],
            class_weight=None if weight == "none" else weight,
        )


def gather(arguments: argparse.Namespace) -> Chosen:
    """The settings from the file of `--config`, `--set` and options. Raises UsageError for what has no meaning."""
    given: dict[str, Any] = {}
    path = getattr(arguments, "config", None)
    if path is not None:
        given |= _from_file(path)
    typed: dict[str, Any] = {}
    for one in SETTINGS:
        text = getattr(arguments, one.key, None)
        if text is not None:
            typed[one.key] = _of_text(one, text, one.option or one.key)
    if getattr(arguments, "table", None) is not None:
        typed["data.table"] = arguments.table
    for assignment in arguments.assignments or ():
        key, sign, text = readable(assignment).partition("=")
        key = key.strip()
        if not sign:
            raise UsageError("no_assignment", text=assignment)
        if key not in BY_KEY:
            raise UsageError("unknown_setting", name=repr(key), advice=nearest(key, list(BY_KEY)))
        value = _of_text(BY_KEY[key], text.strip(), key)
        if typed.get(key, value) != value:
            raise UsageError("set_twice", name=key, first=str(typed[key]), second=str(value))
        typed[key] = value
    return Chosen(given | typed)


def _of_text(setting: Setting, text: Any, name: str) -> Any:
    """The value that stands in a command line."""
    if setting.kind == "names":
        parts = text if isinstance(text, list) else text.split(",")
        return tuple(readable(one).strip() for one in parts if one.strip())
    if setting.kind == "path":
        return text
    if setting.kind == "widths":
        return _widths(text.split(","), text, name)
    if setting.kind in ("whole", "number"):
        try:
            number = int(text) if setting.kind == "whole" else float(text)
        except ValueError:
            raise UsageError(f"no_{setting.kind}", name=name, value=repr(text)) from None
        return _number(setting, number, name)
    return _text(setting, readable(text), name)


def _from_file(path: str) -> dict[str, Any]:
    """What a TOML file sets, by key; UsageError for a file that is none, and for what it may not say."""
    try:
        with open(path, "rb") as file:
            rooms = tomllib.load(file)
    except OSError as error:
        raise UsageError("no_config", path=repr(readable(path)), reason=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("bad_config", path=repr(readable(path)), reason=str(error)) from error
    found = {}
    for room, entries in rooms.items():
        named = entries if isinstance(entries, dict) else {"": entries}
        for name, value in named.items():
            key = f"{room}.{name}" if name else room
            if key not in BY_KEY:
                raise UsageError("unknown_setting", name=repr(key), advice=nearest(key, list(BY_KEY)))
            found[key] = _of_toml(BY_KEY[key], value)
    return found


def _of_toml(setting: Setting, value: Any) -> Any:
    key = setting.key
    if setting.kind == "names":
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise UsageError("no_names", name=key, value=repr(value))
        return tuple(names)
    if setting.kind == "widths":
        parts = value if isinstance(value, list) else [value]
        return _widths([str(one) for one in parts], str(value), key)
    if setting.kind in ("whole", "number"):
        right = (int,) if setting.kind == "whole" else (int, float)
        if isinstance(value, bool) or not isinstance(value, right):
            raise UsageError(f"no_{setting.kind}", name=key, value=repr(value))
        return _number(setting, value if setting.kind == "whole" else float(value), key)
    if not isinstance(value, str):
        raise UsageError("no_text", name=key, value=repr(value))
    return _text(setting, value, key)


def _number(setting: Setting, value: float, name: str) -> float:
    if not math.isfinite(value) or value < setting.least or (setting.above and value <= setting.least):
        key = "too_small_above" if setting.above else "too_small"
        raise UsageError(key, name=name, least=f"{setting.least:g}", value=f"{value:g}")
    return value


def _text(setting: Setting, value: str, name: str) -> str:
    if setting.choices and value not in setting.choices:
        raise UsageError(
            "no_choice", name=name, choices=", ".join(setting.choices), value=repr(value),
            advice=nearest(value, list(setting.choices)),
        )  # fmt: skip
    return value


def _widths(parts: list[str], shown: str, name: str) -> tuple[int, ...]:
    stripped = [one.strip() for one in parts if one.strip()]
    if any(not one.isascii() or not one.isdigit() or not 0 < int(one) < 1 << 16 for one in stripped):
        raise UsageError("no_widths", name=name, value=repr(shown))
    return tuple(map(int, stripped))
