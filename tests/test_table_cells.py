"""What stands in real tables: units behind numbers, repeated rows, values far outside, encodings without a mark."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from chainrule.cli import main  # noqa: E402
from chainrule.data import extras  # noqa: E402
from chainrule.data.cells import number_style, parse_numbers  # noqa: E402
from chainrule.data.inference import infer_schema  # noqa: E402
from chainrule.data.preparation import Preparation  # noqa: E402
from chainrule.data.tabular import read_table  # noqa: E402
from chainrule.errors import DataError, MissingExtraError  # noqa: E402

RANDOM = np.random.default_rng(0)
VALUES = [1250.5, -3.25, 12.0, 0.5, 99999.75, 7.0]

# How a number may be written, and what is read.
WRITINGS: dict[str, Callable[[float], str]] = {
    "$5": lambda one: f"${one}" if one >= 0 else f"-${-one}",
    "€5": lambda one: f"€{one}",
    "$ 5": lambda one: f"$ {one}",
    "₩5": lambda one: f"₩{one:,.2f}",
    "£1,250.50": lambda one: f"£{one:,.2f}",
    "5%": lambda one: f"{one}%",
    "5 %": lambda one: f"{one} %",
    "5 kg": lambda one: f"{one} kg",
    "5kg": lambda one: f"{one}kg",
    "1,250.50 kg": lambda one: f"{one:,.2f} kg",
    "1.250,50 €": lambda one: f"{one:,.2f}".translate(str.maketrans(",.", ".,")) + " €",
    "5 km/h": lambda one: f"{one} km/h",
    "5°C": lambda one: f"{one}°C",
    "5 apples": lambda one: f"{one} apples",
    "5원": lambda one: f"{one}원",
    "5 USD": lambda one: f"{one} USD",
    "USD 5": lambda one: f"USD {one}",
    "5 m²": lambda one: f"{one} m²",
    "1,250.50": lambda one: f"{one:,.2f}",
    "1e3 V": lambda one: f"{one:e} V",
}


def column(cells: list[str]) -> Any:
    return pandas.DataFrame({"a": cells, "t": ["x", "y"] * (len(cells) // 2)})


@pytest.mark.parametrize("name", WRITINGS)
def test_numbers_with_one_unit_are_numbers(name: str) -> None:
    frame = column([WRITINGS[name](one) for one in VALUES])
    schema = infer_schema(frame, "t")
    found = schema.columns[0]
    assert found.kind == "number" and found.maximum == 99999.75 and found.minimum == -3.25
    assert "unit" in str(found.reason) or name == "1,250.50"
    assert str(found.reason) != found.reason.told("ko")
    again = type(schema).from_json(schema.to_json())
    assert again == schema
    preparation = Preparation.fit(frame, "t")
    stored = Preparation.from_json(preparation.to_json())
    expected = (np.array(VALUES) - np.mean(VALUES)) / np.std(VALUES)
    np.testing.assert_allclose(stored.transform(frame)[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "cells",
    [
        ["A1", "A2", "A3", "A4", "A5", "A6"],
        ["1a", "2a", "3a", "4a", "5a", "6a"],
        ["5 kg", "5 lb", "6 kg", "7 kg", "8 kg", "9 kg"],
        ["$5", "€6", "$7", "$8", "$9", "$10"],
        ["5", "6 kg", "7", "8", "9", "1"],
        ["room 1", "room 2", "room 3", "room 4", "room 5", "room 6"],
        ["2024년", "2023년", "2022년", "2021년", "2020년", "2019년"],
        ["5%%", "6%%", "7%%", "8%%", "9%%", "1%%"],
        ["1-2", "3-4", "5-6", "7-8", "9-10", "1-3"],
        ["$", "%", "kg", "$$", "€", "-"],
    ],
    ids=str,
)
def test_codes_and_mixed_units_are_no_numbers(cells: list[str]) -> None:
    assert number_style(cells) is None
    assert infer_schema(column(cells), "t").columns[0].kind != "number"


@pytest.mark.parametrize("write", ["{}~", "<{}", "{} per day each", "'{}'", "({})", "{} 000,0"])
def test_skipped_columns_of_odd_numbers_are_hinted_at(write: str) -> None:
    found = infer_schema(column([write.format(k) for k in range(30)]), "t").columns[0]
    assert not found.used and "look like numbers" in str(found.reason)
    names = infer_schema(column([f"person {k}" for k in range(30)]), "t").columns[0]
    assert "look like numbers" not in str(names.reason)


def test_new_cells_may_lack_the_unit_but_not_have_another() -> None:
    style = number_style(["$5", "$1,250"])
    assert style is not None
    assert parse_numbers(["$5", "7", None, "-$2,000"], style, "a", range(4))[[0, 1, 3]].tolist() == [
        5,
        7,
        -2000,
    ]
    for bad in ("€5", "five", "5 kg", "$", "$5 $"):
        with pytest.raises(DataError, match=r"column 'a' needs numbers; got .* in row 1"):
            parse_numbers([bad], style, "a", range(1))


def test_a_target_with_a_unit_is_predicted_in_numbers(tmp_path: Path, capsys: Any) -> None:
    rows = "\n".join(f"{k},${k * 2:,}.50" for k in range(0, 4000, 50))
    (tmp_path / "data.csv").write_text(
        f"a,price\n{rows}".replace(",$", ',"$').replace("\n", '"\n').replace('price"', "price") + '"\n'
    )
    code = main(
        [
            "train",
            str(tmp_path / "data.csv"),
            "--target",
            "price",
            "--epochs",
            "2",
            "--out",
            str(tmp_path / "run"),
            "--lang",
            "en",
        ]
    )
    out = capsys.readouterr().out
    assert code in (0, 1) and "regression" in out


# ------------------------------------------------------------------------------- repeated rows


@pytest.mark.parametrize(
    "language,words",
    [("en", "among the rows learnt from too, cell by cell: "), ("ko", "모든 칸이 같은 행이")],
)
def test_rows_in_both_parts_are_told(tmp_path: Path, capsys: Any, language: str, words: str) -> None:
    head = "id,a,b,t\n"
    rows = [
        f"{RANDOM.normal():.6f},{RANDOM.normal():.6f},{'yes' if RANDOM.random() > 0.5 else 'no'}"
        for _ in range(100)
    ]
    for name, each in (("unique", rows), ("repeated", rows[:50] * 2)):
        text = head + "".join(f"row{k},{one}\n" for k, one in enumerate(each))
        (tmp_path / f"{name}.csv").write_text(text)
        for more in ((), ("--folds", "2")):
            place = tmp_path / f"{name}{len(more)}"
            main(
                [
                    "train",
                    str(tmp_path / f"{name}.csv"),
                    "--target",
                    "t",
                    "--epochs",
                    "2",
                    "--out",
                    str(place),
                    "--lang",
                    language,
                    *more,
                ]
            )
            out = capsys.readouterr().out
            told = words if not more else f"{words}{'100 of 100' if language == 'en' else ''}"
            assert (told in out) is (name == "repeated")


# ------------------------------------------------------------------------------- far outside


@pytest.mark.parametrize(
    "cell,far",
    [("1e10,2024-01-05", 1), ("-1e10,2024-01-05", 1), ("0.5,9999-12-31", 1), ("0.5,0001-01-01", 1),
     ("1e300,2024-01-05", 1), ("0.5,2024-01-05", 0), ("1.2,2024-02-20", 0), ("3e8,9998-01-01", 2)],
)  # fmt: skip
def test_rows_far_outside_are_told(cell: str, far: int) -> None:
    days = pandas.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    frame = pandas.DataFrame(
        {"a": [f"{one:.4f}" for one in np.linspace(0, 1, 60)], "day": days, "t": ["x", "y"] * 30}
    )
    preparation = Preparation.from_json(Preparation.fit(frame, "t").to_json())
    a, day = cell.split(",")
    new = pandas.DataFrame({"a": ["0.1", a], "day": ["2024-01-02", day]})
    facts: list[Any] = []
    if a == "1e300":
        with pytest.raises(DataError):
            preparation.transform(new, facts)
        return
    preparation.transform(new, facts)
    told = [str(one) for one in facts if one.key == "far_rows"]
    assert len(told) == far
    for one in told:
        assert "1 rows lie far outside what was trained on" in one and "in row 2" in one


# ------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "text", ["a,b\n1,x\n2,y\n", "이름,나이\n철수,5\n영희,6\n", "a;b\r\n1;é\r\n2;ü\r\n", "名前\t数\nあ\t1\n"]
)
@pytest.mark.parametrize(
    "encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8", "utf-16", "utf-8-sig"]
)
def test_wide_encodings_need_no_mark(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    frame, reading = read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(text.encode())
    assert frame.equals(read_table(tmp_path / "b.csv").frame)
    assert list(frame.columns) == list(read_table(tmp_path / "b.csv").frame.columns)
    assert reading.encoding.replace("-sig", "") in encoding or encoding.startswith(reading.encoding)


@pytest.mark.parametrize("data", [b"a,b\n1,\x002\n", b"\x00\x01\x02\x03" * 50, b"a,b\n1,2\n\x00"])
def test_zeros_that_are_no_letters_are_still_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(DataError):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("length", [131_071, 131_072, 131_073, 1_000_000])
def test_a_cell_may_have_any_length(tmp_path: Path, length: int) -> None:
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f'a,b\n1,"{"x" * length}"\n2,y\n')
    frame = read_table(tmp_path / "a.csv").frame
    assert len(frame["b"][0]) == length and csv.field_size_limit() == before
    (tmp_path / "a.csv").write_text(f'a,b\n1,"{"x" * length}\n2,y\n')
    with pytest.raises(DataError, match="quote"):
        read_table(tmp_path / "a.csv")
    assert csv.field_size_limit() == before


def test_without_the_guesser_the_usual_code_page_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_bytes("name,size\nGröße,1\ncafé,2\n".encode("latin-1"))
    wanted = read_table(tmp_path / "a.csv").frame
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    with pytest.raises(MissingExtraError):
        extras.load("charset_normalizer")
    frame, reading = read_table(tmp_path / "a.csv")
    assert frame.equals(wanted) and reading.encoding == "cp1252"
