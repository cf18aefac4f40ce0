"""Tables: reading, inference, preparation, splitting, scores, writing; on real data and on every fault we know."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pandas
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from chainrule.data import tabular
from chainrule.data.facts import Fact
from chainrule.data.tabular import (
    Preparation,
    Schema,
    baseline,
    bundled,
    infer_schema,
    read_table,
    score,
    split,
    split_three,
    write_table,
)
from chainrule.errors import ArgumentError, DataError, MissingExtraError
from chainrule.language import catalogue


def save(folder, content, name="data.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def keys(facts):
    return [entry.key for entry in facts]


def kinds(schema):
    return {column.name: column.kind for column in schema.columns}


def column_of(values, **options):
    return infer_schema(pandas.DataFrame({"x": values}), **options).columns[0]


# ---- Reading -------------------------------------------------------------------------------------------------


def test_cells_keep_their_text_and_missing_words_are_missing(tmp_path):
    path = save(tmp_path, 'id,price,city\n007,0.10, Seoul \n008,NA,"a, ""b"""\n,?,null\n')
    frame, reading = read_table(path)
    assert frame.to_numpy().tolist() == [
        ["007", "0.10", "Seoul"],
        ["008", None, 'a, "b"'],
        [None, None, None],
    ]
    assert (reading.encoding, reading.delimiter, reading.rows, reading.columns) == ("utf-8", ",", 3, 3)
    assert [str(entry) for entry in reading.facts] == ["the text is UTF-8", "columns are separated by commas"]
    assert list(frame.index) == [0, 1, 2]


KOREAN = "이름,도시,점수\n김철수,서울,90\n이영희,부산,85\n"


@pytest.mark.parametrize(
    ("encoding", "answer", "key"),
    [
        ("utf-8", "utf-8", "encoding_utf8"),
        ("utf-8-sig", "utf-8-sig", "encoding_mark"),
        ("utf-16", "utf-16", "encoding_mark"),
        ("utf-32", "utf-32", "encoding_mark"),
        ("cp949", "cp949", "encoding_cp949"),
        ("euc-kr", "cp949", "encoding_cp949"),
    ],
)
def test_korean_in_every_usual_encoding_and_in_the_path(tmp_path, encoding, answer, key):
    (tmp_path / "자료 모음").mkdir()
    frame, reading = read_table(save(tmp_path / "자료 모음", KOREAN, "성적표.csv", encoding))
    assert frame.columns.tolist() == ["이름", "도시", "점수"]
    assert frame["도시"].tolist() == ["서울", "부산"]
    assert reading.encoding == answer and reading.facts[0].key == key
    if answer == "cp949":
        assert "Korean" in str(reading.facts[0])


def test_one_korean_word_is_enough(tmp_path):
    assert read_table(save(tmp_path, "x,y\n1,가\n", encoding="cp949")).frame["y"][0] == "가"


@pytest.mark.parametrize("word", ["café", "Größe", "Ärger", "naïve élève", "Åse Øre", "señor"])
def test_western_text_is_not_taken_for_korean(tmp_path, word):
    frame, reading = read_table(save(tmp_path, f"x,y\n1,{word}\n2,plain\n", encoding="latin-1"))
    assert frame["y"][0] == word
    assert reading.encoding == "cp1252" and reading.facts[0].key == "encoding_fallback"


def test_other_alphabets_are_guessed(tmp_path):
    lines = "\n".join(f"{number},Москва и область Россия" for number in range(20))
    frame, reading = read_table(save(tmp_path, "x,y\n" + lines, encoding="cp1251"))
    assert frame["y"][0] == "Москва и область Россия" and reading.facts[0].key == "encoding_guessed"


def test_an_encoding_can_be_asked_for(tmp_path):
    path = save(tmp_path, "x,y\n1,é\n", encoding="latin-1")
    assert read_table(path, encoding="latin-1").frame["y"][0] == "é"
    with pytest.raises(DataError, match=r"needs an encoding that Python knows; got 'klingon'. Try 'utf-8'"):
        read_table(path, encoding="klingon")
    with pytest.raises(
        DataError, match=r"needs text in utf-8; got bytes that are not at byte 6 of .*Save the file as"
    ):
        read_table(path, encoding="utf-8")


@pytest.mark.parametrize(
    ("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars"), (",", "commas")]
)
def test_delimiters_are_found_and_said(tmp_path, delimiter, word):
    rows = [["a", "b", "c"], ["1,5" if delimiter != "," else "1.5", "x", "3"], ["2", "y", "4"]]
    reading = read_table(save(tmp_path, "\r\n".join(delimiter.join(row) for row in rows))).reading
    assert reading.delimiter == delimiter and reading.columns == 3 and word in str(reading.facts[1])


def test_a_delimiter_can_be_declared_or_asked_for(tmp_path):
    path = save(tmp_path, "sep=;\na;b\n1;2\n3\n")
    with pytest.raises(DataError, match="got 1 in line 4"):
        read_table(path)
    frame, reading = read_table(save(tmp_path, "sep=;\r\na;b\r\n1;2\r\n"))
    assert frame.columns.tolist() == ["a", "b"] and keys(reading.facts) == [
        "encoding_utf8",
        "delimiter_declared",
    ]
    assert read_table(save(tmp_path, "a:b\n1:2\n"), delimiter=":").frame.shape == (1, 2)
    with pytest.raises(DataError, match="needs a delimiter of one character; got '::'"):
        read_table(path, delimiter="::")


def test_one_column_blank_lines_and_old_line_ends(tmp_path):
    frame, reading = read_table(save(tmp_path, "\nx\r1\r\r2\r"))
    assert frame["x"].tolist() == ["1", "2"]
    assert keys(reading.facts) == ["encoding_utf8", "delimiter_single", "blank_lines"]
    assert str(reading.facts[2]) == "1 blank lines were skipped"


def test_unnamed_columns_and_a_file_without_names_are_said(tmp_path):
    frame, reading = read_table(save(tmp_path, ",a,\n0,5,6\n"))
    assert frame.columns.tolist() == ["unnamed 1", "a", "unnamed 3"]
    assert str(reading.facts[-1]) == "columns without a name were named 'unnamed 1', 'unnamed 3'"
    reading = read_table(save(tmp_path, "5.1,3.5,setosa\n4.9,3.0,setosa\n")).reading
    assert "looks like numbers: '5.1', '3.5'" in str(reading.facts[-1])
    assert "numeric_header" not in keys(read_table(save(tmp_path, "0,1,2\n1,2,3\n")).reading.facts)


BROKEN = {
    "empty": ("", r"got the empty file .*empty.csv'\. Fill it"),
    "blank": ("\n \n\t\n", r"got the empty file"),
    "header": ("a,b\n", r"needs at least one row below the column names; got only the line of names"),
    "short": (
        "a,b,c\n1,2,3\n4,5\n",
        r"needs 3 fields in every row, .*; got 2 in line 3 of .*put quotes around",
    ),
    "long": ('a,b\n"1\n1",2\n\n3,4,5\n', r"needs 2 fields in every row, .*; got 3 in line 5 of"),
    "quote": (
        'a,b\n1,2\n3,"open\n5,6\n7,8\n',
        r"needs every quote closed; got .* the row of line 3 of .*Close the quote",
    ),
    "quotes": ('a,b\n1,"x" y\n', r"needs every quote closed; got .* the row of line 2 of"),
    "huge": ('a,b\n1,"' + "x" * 200_000 + "\n", r"line 2 of .*does not end properly .unexpected end of data"),
    "nul": ("a,b\n1,2\n3,\0\n", r"needs text; got a NUL byte in line 3 of .*save it again as CSV in UTF-8"),
    "twice": (
        "a,b,a\n1,2,3\n",
        r"needs different column names; got 'a' more than once in .*Rename the columns",
    ),
    "excel": (
        b"PK\x03\x04....",
        r"needs a CSV file; got an Excel workbook or a zip archive: .*Export it as CSV",
    ),
    "page": ("<!DOCTYPE html>\n<html>", r"needs a CSV file; got a web page"),
    "mark": (b"\xff\xfea\x00,\x00b\x00\n", r"needs text in utf-16; got bytes that are not"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_with_the_fix(tmp_path, name):
    content, message = BROKEN[name]
    with pytest.raises(DataError, match=message):
        read_table(save(tmp_path, content, f"{name}.csv"))


def test_paths_that_are_no_files(tmp_path):
    save(tmp_path, "a\n1\n", "iris.csv")
    with pytest.raises(DataError, match=r"got '.*iris.cvs', which does not exist. Did you mean 'iris.csv'\?"):
        read_table(tmp_path / "iris.cvs")
    with pytest.raises(DataError, match=r"which does not exist. Check the path"):
        read_table(tmp_path / "nowhere" / "zzz")
    with pytest.raises(DataError, match=r"needs a file; got the folder .* Name a CSV file in it"):
        read_table(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DataError, match="needs a regular file"):
            read_table(tmp_path / "pipe")


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_table_or_a_data_error(tmp_path_factory, data):
    path = save(tmp_path_factory.getbasetemp(), data, "any.csv")
    try:
        frame = read_table(path).frame
        infer_schema(frame)
    except DataError:
        return
    assert len(frame) > 0


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).map(str.strip)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "round.csv"
    frame = pandas.DataFrame(rows, columns=["first", "second"], dtype=object)
    write_table(frame, path, guard=False)
    expected = [[None if cell in tabular_missing() else cell for cell in row] for row in rows]
    assert read_table(path).frame.to_numpy().tolist() == expected


def tabular_missing():
    from chainrule.data.cells import MISSING

    return MISSING


# ---- Kinds of columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "style", "mean"),
    [
        (["1", "-2.5", ".5", "1e3", "+4."], "number", "plain", 200.6),
        (["1,234", "2,000,000.5", "3"], "number", "thousands", 667079.1666666666),
        (["1,5", "2,25", "-3"], "number", "decimal comma", 0.25),
        (["1.234,5", "2,5"], "number", "decimal comma", 618.5),
        (["0,123", "0,456"], "number", "decimal comma", 0.2895),
        (["1", "-", None, "."], "number", "plain", 1.0),
        ([1.5, 2.5, None], "number", "plain", 2.0),
        ([1, 2, 3], "number", "plain", 2.0),
    ],
)
def test_numbers_and_how_they_are_written(values, kind, style, mean):
    column = column_of(values)
    assert (column.kind, column.style, column.mean) == (kind, style, mean)


@pytest.mark.parametrize("text", ["1_000", "１２", "١٢", "0x10", "1 000", "12%", "$5", "1e", "--1", "٣.٥"])
def test_what_python_or_people_call_numbers_and_we_do_not(text):
    assert column_of([text, text, "other", "other"]).kind == "category"
    message = rf"column 'x' needs numbers; got {text!r} in row 2. Correct the cell".replace("$", r"\$")
    with pytest.raises(DataError, match=message):
        column_of(["1", text], kinds={"x": "number"})


@pytest.mark.parametrize("text", ["1e999", "-1e999", "inf", "-Infinity"])
def test_infinity_is_refused_with_its_row(text):
    with pytest.raises(DataError, match=rf"column 'x' needs finite numbers; got '{text}' in row 3"):
        column_of(["1", "2", text])


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        (["true", "False", "TRUE"], "boolean", "boolean"),
        (["true", "false", "true"], "boolean", "boolean"),
        (["Yes", "No", None], "boolean", "boolean"),
        (["예", "아니요", "예"], "boolean", "boolean"),
        ([True, False, True], "boolean", "boolean"),
        (["a", "b", "a"], "category", "category"),
        (["007", "012", "007"], "category", "category_codes"),
        (["1", "2", "3+", "1"], "category", "category_mixed"),
        (["a", "b", "c"], "identifier", "identifier"),
        (["5", "5", "5"], "constant", "constant"),
        (["5", None, "5"], "number", "number"),
        ([None, None], "missing", "missing"),
        (["NA", "?"], "missing", "missing"),
        ([f"word {n % 30}" for n in range(50)], "text", "text"),
        ([f"word {n % 30}" for n in range(100)], "category", "category"),
        (["03/02/2024", "04/02/2024"], "text", "text_dates"),
    ],
)
def test_kinds_with_their_reasons(values, kind, reason):
    column = column_of(values)
    assert (column.kind, column.reason.key) == (kind, reason)
    assert str(column.reason)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("unnamed 1", "0 1 2 3", "identifier"),
        ("Id", "1 2 3 4", "identifier"),
        ("PassengerId", "11 12 13 14", "identifier"),
        ("user_id", "9 4 7 1", "identifier"),
        ("customerID", "9 4 7 1", "identifier"),
        ("고객번호", "1000 1001 1002 1003", "identifier"),
        ("user_id", "9 4 9 1", "number"),
        ("x", "1 2 3 4", "number"),
        ("humid", "1 2 3 4", "number"),
    ],
)
def test_whole_numbers_are_identifiers_by_name(name, values, kind):
    assert infer_schema(pandas.DataFrame({name: values.split()})).columns[0].kind == kind


@pytest.mark.parametrize(
    ("values", "first", "last"),
    [
        (["2024-03-01", "2024-03-05"], "2024-03-01", "2024-03-05"),
        (["2024-03-01T12:30:00Z", "2024-03-05 01:00"], "2024-03-01T12:30:00", "2024-03-05T01:00:00"),
        (["2024/3/1", "2024/12/25"], "2024-03-01", "2024-12-25"),
        (["2024. 3. 1.", "2024. 12. 25."], "2024-03-01", "2024-12-25"),
        (["2024년 3월 1일", "2024년 12월 25일"], "2024-03-01", "2024-12-25"),
        (["20240301", "20241225"], "2024-03-01", "2024-12-25"),
        (["1.3.2024", "25.12.2024"], "2024-03-01", "2024-12-25"),
        (["01/03/2024", "25/12/2024"], "2024-03-01", "2024-12-25"),
        (["03/01/2024", "12/25/2024"], "2024-03-01", "2024-12-25"),
        (list(pandas.to_datetime(["1899-12-31", "2024-03-05"])), "1899-12-31", "2024-03-05"),
    ],
)
def test_dates_and_their_forms(values, first, last):
    column = column_of([*values, None])
    assert (column.kind, column.minimum, column.maximum, column.missing) == ("date", first, last, 1)


def test_a_fault_in_a_column_of_numbers_is_an_error_and_not_a_category():
    values = [str(number / 7) for number in range(100)] + ["unknown"]
    message = r"column 'x' has 100 numbers among its 101 values .*; got 'unknown' in row 101. Correct the cell, .*skip"
    with pytest.raises(DataError, match=message):
        column_of(values)
    assert column_of(values, kinds={"x": "skip"}).kind == "skipped"


def test_kinds_can_be_settled():
    frame = pandas.DataFrame({"zip": [12345, 23456, 12345], "flag": ["1", "0", "1"], "name": list("abc")})
    schema = infer_schema(frame, kinds={"zip": "category", "flag": "boolean", "name": "category"})
    assert kinds(schema) == {"zip": "category", "flag": "boolean", "name": "category"}
    assert schema.columns[0].common == (("12345", 2), ("23456", 1))
    with pytest.raises(
        ArgumentError, match="the kind of a column must be number, boolean, date, category or skip; got"
    ):
        infer_schema(frame, kinds={"zip": "code"})
    with pytest.raises(
        DataError, match=r"the table has no column 'Zap'; it has 'zip', .* Did you mean 'zip'\?"
    ):
        infer_schema(frame, kinds={"Zap": "skip"})
    with pytest.raises(
        DataError, match=r"dates must say which number is the day; got .* such as '01/02/2024'"
    ):
        column_of(["01/02/2024"], kinds={"x": "date"})
    with pytest.raises(DataError, match="column 'x' needs yes or no; got 'maybe' in row 2"):
        column_of(["yes", "maybe"], kinds={"x": "boolean"})


# ---- The target ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a", "b", "a"], "classification", ("a", "b")),
        (["0", "1", "1", "0"], "classification", ("0", "1")),
        ([True, False, True], "classification", ("False", "True")),
        ([10.0, 9.0, 10.0], "classification", ("9", "10")),
        (["1", "1.0", "2", "2"], "classification", ("1", "2")),
        ([str(number % 10) for number in range(50)], "classification", tuple("0123456789")),
        ([str(number % 10) for number in range(49)], "regression", ()),
        (["0.5", "1.5", "0.5"], "regression", ()),
        ([str(number) for number in range(30)], "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(values, task, classes):
    target = infer_schema(pandas.DataFrame({"y": values}), "y").target
    assert (target.task, target.classes) == (task, classes)
    assert str(target.reason).startswith(task)
    assert sum(target.counts) == (len(values) if classes else 0)


def test_the_task_can_be_settled():
    frame = pandas.DataFrame({"y": [1, 2, 1, 2, 1], "word": list("aabba")})
    assert infer_schema(frame, "y", "regression").target.task == "regression"
    assert infer_schema(frame, "y", "classification").target.reason.key == "task_asked"
    with pytest.raises(DataError, match="column 'word' needs numbers; got 'a' in row 1"):
        infer_schema(frame, "word", "regression")
    with pytest.raises(
        ArgumentError, match="the task must be auto, classification or regression; got 'ranking'"
    ):
        infer_schema(frame, "y", "ranking")


def test_missing_targets_and_single_rows_are_said():
    target = infer_schema(pandas.DataFrame({"y": ["a", None, "a", "b", "NA"]}), "y").target
    assert [str(entry) for entry in target.facts] == [
        "2 rows have no target value and are left out",
        "classes with a single row, which cannot be both learnt and tested: 'b'",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["5", "5"],
            r"the target 'y' needs at least two different values; got '5' in every row. Name another",
        ),
        (["5", None], r"needs at least two different values"),
        ([None, "NA"], r"the target 'y' needs at least two different values; got none in 2 rows"),
        (
            ["a", "b", "c"],
            r"needs several rows for each class; got 3 different values in 3 rows, such as 'a'",
        ),
        (
            [f"w{n % 30}" for n in range(40)],
            r"needs several rows for each class; got 30 different values in 40 rows",
        ),
        (["1", "2", "inf"], r"column 'y' needs finite numbers; got 'inf' in row 3"),
    ],
)
def test_targets_that_cannot_be_learnt(values, message):
    with pytest.raises(DataError, match=message):
        infer_schema(pandas.DataFrame({"y": values}), "y")


def test_an_unknown_target_suggests_close_names():
    frame = bundled("iris").frame
    with pytest.raises(
        DataError, match=r"the table has no column 'Spices'; it has 'sepal.* Did you mean 'species'\?"
    ):
        infer_schema(frame, "Spices")
    with pytest.raises(DataError, match="Name one of these columns"):
        infer_schema(frame, "qqqq")


# ---- Preparation ---------------------------------------------------------------------------------------------


def mixed(rows=400, seed=0):
    random = np.random.default_rng(seed)
    frame = pandas.DataFrame(
        {
            "age": random.normal(40, 12, rows).round(1),
            "income": random.lognormal(10, 1, rows).round(2),
            "city": random.choice(["Seoul", "Busan", "Jeju"], rows),
            "job": random.choice(["a", "b"], rows),
            "member": random.choice(["yes", "no"], rows),
            "joined": pandas.Timestamp("2020-01-01")
            + pandas.to_timedelta(random.integers(0, 900, rows), unit="D"),
            "name": [f"person {number}" for number in range(rows)],
        }
    )
    frame.loc[:1, "city"] = "Ulsan"
    frame["bought"] = np.where(frame["age"] + random.normal(0, 5, rows) > 40, "yes", "no")
    frame.loc[random.random(rows) < 0.1, "age"] = np.nan
    frame["job"] = frame["job"].mask(random.random(rows) < 0.1)
    return frame


def from_file(frame, folder, name="table.csv"):
    write_table(frame, folder / name)
    return read_table(folder / name).frame


def test_the_transform_equals_scikit_learn(tmp_path):
    frame = mixed()
    train, test = split(frame, "bought", "classification", seed=3)
    preparation = Preparation.fit(from_file(frame.iloc[train], tmp_path), "bought")
    assert {column.name: column.kind for column in preparation.schema.skipped} == {"name": "identifier"}

    typed = frame.assign(
        member=(frame["member"] == "yes").astype(float),
        days=(frame["joined"] - pandas.Timestamp("1970-01-01")) / pandas.Timedelta(days=1),
        month=frame["joined"].dt.month,
        weekday=frame["joined"].dt.day_of_week,
        city=frame["city"].fillna(""),
        job=frame["job"].fillna(""),
    )
    numbers = ["age", "income", "member", "days", "month", "weekday"]
    encoder = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=3, max_categories=50, sparse_output=False
    )
    reference = ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            ("missing", MissingIndicator(), ["age"]),
            ("category", encoder, ["city", "job"]),
        ]
    )
    expected = reference.fit(typed.iloc[train]).transform(typed.iloc[test]).astype(np.float32)
    facts: list[Fact] = []
    x = preparation.transform(from_file(frame.iloc[test], tmp_path), facts)
    names = list(preparation.feature_names)
    order = [
        *("age", "income", "member", "joined days", "joined month", "joined weekday", "age (missing)"),
        *("city=Busan", "city=Jeju", "city=Seoul", "city (rare)", "job (missing)", "job=a", "job=b"),
    ]
    assert sorted(names) == sorted(order)
    assert x.dtype == np.float32 and facts == []
    np.testing.assert_array_equal(x[:, [names.index(name) for name in order]], expected)


def test_statistics_come_from_training_rows_only():
    frame = pandas.DataFrame({"x": [1.0, 2.0, 3.0, 1000.0], "c": ["a", "b", "a", "z"], "y": [0, 1, 0, 1]})
    whole = infer_schema(frame, "y", kinds={"c": "category"})
    preparation = Preparation.fit(frame.iloc[:3], "y", schema=whole)
    scaling = preparation.steps[0].scalings[0]
    assert (scaling.median, scaling.mean) == (2.0, 2.0)
    assert preparation.steps[1].levels == ("a", "b")
    facts: list[Fact] = []
    np.testing.assert_array_equal(preparation.transform(frame, facts)[3, 1:], [0, 0])
    assert (
        str(facts[0])
        == "column 'c': 1 values, such as 'z', were never seen in training and count as unknown, "
        "as none of the known values"
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_json_round_trip_transforms_alike(tmp_path, task):
    frame = from_file(mixed(seed=7), tmp_path)
    preparation = Preparation.fit(frame, "bought" if task == "classification" else "income", task)
    text = json.dumps(preparation.to_json(), allow_nan=False)
    again = Preparation.from_json(json.loads(text))
    assert again == preparation and again.schema == preparation.schema
    other = from_file(mixed(seed=8), tmp_path)
    assert again.transform(other).tobytes() == preparation.transform(other).tobytes()
    y = again.encode_target(other[again.target.name])
    assert y.tobytes() == preparation.encode_target(other[again.target.name]).tobytes()
    assert again.decode_target(y).tolist() == preparation.decode_target(y).tolist()
    assert Schema.from_json(json.loads(json.dumps(preparation.schema.to_json()))) == preparation.schema


COLUMN = st.one_of(
    st.lists(st.none() | st.floats(-1e100, 1e100, allow_nan=False), min_size=12, max_size=12),
    st.lists(st.none() | st.sampled_from(["가", "b", "c d", "true", "1"]), min_size=12, max_size=12),
    st.lists(st.none() | st.dates().map(str), min_size=12, max_size=12),
)


@given(st.lists(COLUMN, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_json_round_trip_on_any_table(columns):
    frame = pandas.DataFrame(
        {f"c{position}": values for position, values in enumerate(columns)}, dtype=object
    )
    frame["y"] = ["a", "b"] * 6
    try:
        preparation = Preparation.fit(frame, "y")
    except DataError as error:
        assert "at least one column besides" in str(error)
        return
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json(), allow_nan=False)))
    x = preparation.transform(frame)
    assert np.isfinite(x).all() and x.shape == (12, len(preparation.feature_names))
    assert again.transform(frame).tobytes() == x.tobytes()


def test_damaged_records_are_refused():
    good = Preparation.fit(bundled("iris").frame, "species").to_json()

    def damaged(**changes):
        return json.loads(json.dumps(good)) | changes

    step = good["steps"][0]
    bad_scale = step | {"scalings": [step["scalings"][0] | {"scale": 0.0}]}
    bad_mean = step | {"scalings": [step["scalings"][0] | {"mean": float("nan")}]}
    records = [
        {},
        damaged(format="chainrule preparation 99"),
        damaged(steps=[]),
        damaged(steps=None),
        damaged(steps=[step | {"style": "%q"}, *good["steps"][1:]]),
        damaged(steps=[step | {"scalings": []}, *good["steps"][1:]]),
        damaged(schema=good["schema"] | {"target": good["schema"]["target"] | {"style": "roman"}}),
        damaged(steps=[bad_scale, *good["steps"][1:]]),
        damaged(steps=[bad_mean, *good["steps"][1:]]),
        damaged(schema={}),
        damaged(schema=good["schema"] | {"target": good["schema"]["target"] | {"classes": ["a", "a"]}}),
        damaged(schema=good["schema"] | {"target": good["schema"]["target"] | {"task": "ranking"}}),
        damaged(schema=good["schema"] | {"target": None}),
        damaged(target_scale="x"),
        [],
    ]
    for record in records:
        with pytest.raises(DataError, match=r"The (file|record) is damaged or"):
            Preparation.from_json(record)


def test_columns_at_prediction():
    frame = bundled("iris").frame
    preparation = Preparation.fit(frame, "species")
    x = preparation.transform(frame)
    facts: list[Fact] = []
    shuffled = frame.drop(columns="species")[frame.columns[[3, 1, 0, 2]]].assign(note="x", comment="y")
    np.testing.assert_array_equal(preparation.transform(shuffled, facts), x)
    assert [str(entry) for entry in facts] == [
        "columns that the training table did not have were ignored: 'note', 'comment'"
    ]
    assert preparation.transform(frame.iloc[:1]).shape == (1, 4)
    with pytest.raises(
        DataError, match=r"the table has no column 'petal_width_cm'; it has .*Did you mean 'petal_width"
    ):
        preparation.transform(frame.rename(columns={"petal_width_cm": "petal_width"}))
    with pytest.raises(DataError, match="needs different column names; got 'species' more than once"):
        preparation.transform(frame.set_axis(["species"] * 5, axis=1))
    with pytest.raises(DataError, match="a table needs at least one row; got none"):
        preparation.transform(frame.iloc[:0])


def test_cells_at_prediction():
    train = pandas.DataFrame(
        {
            "n": ["1", "2", "3", "5"],
            "b": ["yes", "no", "yes", "no"],
            "d": ["2024-01-01", "2024-01-02 06:00", "2024-02-01", "2024-01-01"],
            "c": ["a", "b", "a", "b"],
            "y": ["p", "q", "p", "q"],
        }
    )
    preparation = Preparation.fit(train, "y")
    assert preparation.feature_names == ("n", "b", "d days", "d month", "d weekday", "d hour", "c=a", "c=b")
    assert preparation.feature_columns == ("n", "b", "d", "d", "d", "d", "c", "c")
    for column, cell, message in [
        ("n", "many", "column 'n' needs numbers; got 'many' in row 3. Correct the cell, or leave it empty"),
        ("n", "1e999", "column 'n' needs finite numbers; got '1e999' in row 3"),
        ("n", "1e300", "column 'n' needs numbers near those of training; got one in row 3"),
        ("b", "perhaps", "column 'b' needs yes or no; got 'perhaps' in row 3"),
        ("d", "01/02/2024", "column 'd' needs dates of the form ISO8601; got '01/02/2024' in row 3"),
    ]:
        new = train.copy()
        new.loc[2, column] = cell
        with pytest.raises(DataError, match=message):
            preparation.transform(new)
    facts: list[Fact] = []
    new = train.copy()
    new.loc[2] = [None, None, None, None, None]
    row = preparation.transform(new, facts)[2]
    assert keys(facts) == ["unseen_missing"] * 3 + ["unseen_missing_level"]
    assert facts[0].values == {"column": "'n'", "count": 1}
    assert row[6:].tolist() == [0, 0]
    assert row[0] == np.float32((2.5 - 2.75) / np.std([1, 2, 3, 5]))


def test_rare_levels_share_a_column_and_unknown_ones_join_it():
    values = ["a"] * 150 + ["b"] * 148 + ["r1", "r2"]
    frame = pandas.DataFrame({"c": values, "y": ["0", "1"] * 150})
    preparation = Preparation.fit(frame, "y")
    assert preparation.feature_names == ("c=a", "c=b", "c (rare)")
    new = pandas.DataFrame({"c": ["r1", "new", "a"]})
    assert preparation.transform(new).tolist() == [[0, 0, 1], [0, 0, 1], [1, 0, 0]]
    many = pandas.DataFrame({"c": [f"level {n % 80}" for n in range(8000)], "y": ["0", "1"] * 4000})
    assert len(Preparation.fit(many, "y").feature_names) == 50


def test_targets_there_and_back():
    frame = pandas.DataFrame({"x": range(6), "y": ["b", "a", "b", "a", None, "a"]})
    preparation = Preparation.fit(frame, "y")
    y = preparation.encode_target(frame["y"].dropna())
    assert y.dtype == np.int64 and y.tolist() == [1, 0, 1, 0, 0]
    assert preparation.decode_target(y).tolist() == ["b", "a", "b", "a", "a"]
    assert preparation.steps[0].scalings[0].mean == 2.2  # without the row that has no target
    with pytest.raises(
        DataError, match=r"the target 'y' needs a value in every row; got none in row 5. Take the rows"
    ):
        preparation.encode_target(frame["y"])
    with pytest.raises(DataError, match="needs one of the classes of training, 'a', 'b'; got 'c' in row 1"):
        preparation.encode_target(pandas.Series(["c"]))
    for wrong in ([2], [-1], [0.5]):
        with pytest.raises(DataError, match="decode_target needs class indices from 0 to 1; got"):
            preparation.decode_target(wrong)


def test_regression_targets_are_standardised():
    frame = pandas.DataFrame({"x": range(30), "y": np.linspace(100, 900, 30)})
    preparation = Preparation.fit(frame, "y")
    y = preparation.encode_target(frame["y"])
    assert y.dtype == np.float32 and abs(float(y.mean())) < 1e-6 and abs(float(y.std()) - 1) < 1e-6
    np.testing.assert_allclose(preparation.decode_target(y.reshape(-1, 1)), frame["y"], rtol=1e-6)
    with pytest.raises(DataError, match="column 'y' needs numbers; got 'much' in row 1"):
        preparation.encode_target(pandas.Series(["much"]))


def test_what_cannot_be_fitted():
    frame = pandas.DataFrame({"name": list("abcd"), "same": ["1"] * 4, "y": ["0", "1"] * 2})
    with pytest.raises(
        DataError, match="at least one column besides the target 'y'; got 'name', 'same', all skipped"
    ):
        Preparation.fit(frame, "y")
    with pytest.raises(DataError, match="column 'x' needs numbers whose squares are finite"):
        Preparation.fit(pandas.DataFrame({"x": ["1e200", "-1e200"], "y": ["0", "1"]}), "y")
    with pytest.raises(DataError, match="fit needs a schema made for the target 'y'"):
        Preparation.fit(frame, "y", schema=infer_schema(frame))
    with pytest.raises(DataError, match="fit needs rows with a value of the target 'y'; got none in 2 rows"):
        table = pandas.DataFrame({"x": [1, 2, 3, 4], "y": ["a", "b", None, None]})
        Preparation.fit(table.iloc[2:], "y", schema=infer_schema(table, "y"))


# ---- Splits and scores ---------------------------------------------------------------------------------------


def test_a_split_is_stratified_complete_and_repeatable():
    frame = mixed()
    frame.loc[:9, "bought"] = None
    facts: list[Fact] = []
    train, test = split(frame, "bought", "classification", facts=facts)
    assert len(test) == 78 and sorted([*train, *test]) == list(range(10, 400))
    assert keys(facts) == ["split_stratified"]
    whole = (frame["bought"] == "yes").sum() / 390
    assert abs((frame["bought"].iloc[test] == "yes").mean() - whole) < 0.01
    again = split(frame, "bought", "classification")
    assert np.array_equal(train, again[0]) and np.array_equal(test, again[1])
    assert not np.array_equal(test, split(frame, "bought", "classification", seed=1)[1])
    parts = split_three(frame, "bought", "classification", validation=0.2, test=0.1)
    assert [len(part) for part in parts] == [273, 78, 39] and sorted(np.concatenate(parts)) == list(
        range(10, 400)
    )


def test_splits_that_cannot_be_stratified():
    facts: list[Fact] = []
    frame = pandas.DataFrame({"y": ["a"] * 10 + ["b"] * 10 + ["once"]})
    train, _ = split(frame, "y", "classification", facts=facts)
    assert 20 in train and keys(facts) == ["split_stratified"]
    split(pandas.DataFrame({"y": list("aabbccdd")}), "y", "classification", facts=facts)
    assert "a part of 2 rows cannot hold 4 classes" in str(facts[-1])
    split(pandas.DataFrame({"y": list("abcd")}), "y", "classification", facts=facts)
    assert facts[-1].key == "split_random_single"
    train, test = split(frame, "y", "classification", test=0)
    assert len(train) == 21 and len(test) == 0
    train, test = split(pandas.DataFrame({"y": [0, 1, 1, 0]}), "y", "regression", test=0.9)
    assert (len(train), len(test)) == (1, 3)
    with pytest.raises(DataError, match="two parts need at least two rows with a target value; got 1"):
        split(pandas.DataFrame({"y": ["1", None]}), "y", "regression")
    with pytest.raises(
        ArgumentError, match=r"the share of test rows must be at least 0 and below 1; got 1.5. Try 0.2"
    ):
        split(frame, "y", "classification", test=1.5)
    with pytest.raises(ArgumentError, match=r"together below 1; got 0.5 and 0.5"):
        split_three(frame, "y", "classification", validation=0.5, test=0.5)
    with pytest.raises(ArgumentError, match=r"the seed must be at least 0 and below 2\*\*32; got -1"):
        split(frame, "y", "classification", seed=-1)
    with pytest.raises(ArgumentError, match=r"the task must be classification or regression; got 'auto'"):
        split(frame, "y", "auto")


def test_scores_equal_scikit_learn():
    random = np.random.default_rng(0)
    truth, prediction = random.normal(size=50), random.normal(size=50)
    scores = score("regression", truth, prediction)
    assert scores["r2"] == pytest.approx(r2_score(truth, prediction))
    assert scores["mean_absolute_error"] == pytest.approx(mean_absolute_error(truth, prediction))
    assert score("regression", [2, 2], [2, 2])["r2"] == 1 and score("regression", [2, 2], [2, 3])["r2"] == 0
    labels, guesses = random.integers(0, 3, 50), random.integers(0, 3, 50)
    assert score("classification", labels, guesses) == {"accuracy": accuracy_score(labels, guesses)}
    assert baseline("classification", [1, 1, 0], [1, 0, 0, 1]) == {"accuracy": 0.5}
    assert baseline("regression", [0.0, 2.0], [0.0, 2.0]) == {"r2": 0.0, "mean_absolute_error": 1.0}
    with pytest.raises(
        DataError, match="a score needs as many predictions as true values, and at least one; got 1 and 2"
    ):
        score("regression", [1, 2], [1])
    with pytest.raises(DataError, match="a baseline needs training rows; got none"):
        baseline("regression", [], [1])
    with pytest.raises(ArgumentError, match="the task must be"):
        score("ranking", [1], [1])


# ---- Writing -------------------------------------------------------------------------------------------------


def test_writing_is_atomic_and_keeps_the_text(tmp_path, monkeypatch):
    path = tmp_path / "결과.csv"
    frame = pandas.DataFrame(
        {"이름": ["가", None], "p": np.array([0.1, 2], dtype=np.float32), "q": [1 / 3, 2.0]}
    )
    assert write_table(frame, path) == []
    assert path.read_bytes() == "이름,p,q\n가,0.1,0.3333333333333333\n,2.0,2\n".encode()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(
        DataError, match=r"write_table needs a file it can write; got .*No space left on device"
    ):
        write_table(frame.iloc[:1], path)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3 and os.listdir(tmp_path) == ["결과.csv"]


def test_places_that_cannot_be_written(tmp_path):
    frame = pandas.DataFrame({"a": [1]})
    with pytest.raises(DataError, match=r"write_table needs a file it can write; got .*not a regular file"):
        write_table(frame, tmp_path)
    with pytest.raises(DataError, match=r"write_table needs a file it can write; got .*No such file"):
        write_table(frame, tmp_path / "nowhere" / "out.csv")


def test_formulas_are_guarded(tmp_path):
    frame = pandas.DataFrame({"=a": ["=1+1", "@x", "-5", "+", "-cmd", "fine"]})
    facts = write_table(frame, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "'=a",
        "'=1+1",
        "'@x",
        "-5",
        "+",
        "'-cmd",
        "fine",
    ]
    assert facts[0].values == {"count": 4}
    assert write_table(frame, tmp_path / "out.csv", guard=False) == []


def test_two_writers_leave_one_whole_file(tmp_path):
    path = tmp_path / "out.csv"
    frames = [pandas.DataFrame({"a": [str(number)] * 2000}) for number in range(4)]
    writers = [threading.Thread(target=write_table, args=(frame, path)) for frame in frames]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(set(read_table(path).frame["a"])) == 1 and os.listdir(tmp_path) == ["out.csv"]


# ---- Real data -----------------------------------------------------------------------------------------------


def exported(name, folder):
    """A real set as a file with names for classes, and the columns of its features."""
    data = getattr(datasets, f"load_{name}")()
    features = [
        str(feature).replace(" ", "_")
        for feature in getattr(data, "feature_names", range(data.data.shape[1]))
    ]
    frame = pandas.DataFrame(data.data, columns=features)
    named = name in ("iris", "wine", "breast_cancer")
    frame["answer"] = np.asarray(data.target_names)[data.target] if named else data.target
    return from_file(frame, folder, f"{name}.csv"), data


@pytest.mark.parametrize(
    ("name", "task", "classes", "least"),
    [
        ("iris", "classification", 3, 0.9),
        ("wine", "classification", 3, 0.9),
        ("breast_cancer", "classification", 2, 0.9),
        ("digits", "classification", 10, 0.9),
        ("diabetes", "regression", 0, 0.25),
    ],
)
def test_real_sets_are_learnt_through_the_whole_path(tmp_path, name, task, classes, least):
    frame, data = exported(name, tmp_path)
    schema = infer_schema(frame, "answer")
    assert schema.target.task == task and len(schema.target.classes) == classes
    train, test = split(frame, "answer", task)
    preparation = Preparation.fit(frame.iloc[train], "answer", schema=schema)
    x, y = preparation.transform(frame.iloc[train]), preparation.encode_target(frame["answer"].iloc[train])
    x_test, y_test = (
        preparation.transform(frame.iloc[test]),
        preparation.encode_target(frame["answer"].iloc[test]),
    )
    # Every pixel of digits that is never lit is constant, skipped and said so.
    constant = int((data.data == data.data[0]).all(axis=0).sum())
    assert x.shape == (len(train), data.data.shape[1] - constant) and len(schema.skipped) == constant
    model = LogisticRegression(solver="newton-cg") if task == "classification" else Ridge()
    prediction = model.fit(x, y).predict(x_test)
    result, known_nothing = score(task, y_test, prediction), baseline(task, y, y_test)
    measure = "accuracy" if task == "classification" else "r2"
    assert result[measure] > max(least, known_nothing[measure] + 0.2)
    if task == "classification":
        assert set(preparation.decode_target(prediction)) <= set(schema.target.classes)
    else:
        truth = data.target[test]
        assert score(task, truth, preparation.decode_target(prediction))["r2"] == pytest.approx(
            result["r2"], abs=1e-5
        )


def test_the_bundled_set_is_scikit_learns():
    frame, reading = bundled("iris")
    data = datasets.load_iris()
    assert reading.rows == 150 and keys(reading.facts) == ["encoding_utf8", "delimiter_comma"]
    np.testing.assert_array_equal(frame.iloc[:, :4].astype(float).to_numpy(), data.data)
    assert frame["species"].tolist() == data.target_names[data.target].tolist()
    with pytest.raises(
        DataError, match=r"the package holds the tables iris; got 'irs'. Did you mean 'iris'\?"
    ):
        bundled("irs")


# ---- The room itself -----------------------------------------------------------------------------------------


def test_facts_survive_json_and_every_key_has_a_sentence():
    entry = Fact("unnamed_columns", {"names": [f"c{number}" for number in range(10)]})
    assert str(entry).endswith("'c7' and 2 more")
    assert Fact.from_json(json.loads(json.dumps(entry.to_json()))) == entry
    with pytest.raises(DataError, match="a fact needs a known key; got 'nonsense'"):
        Fact.from_json({"key": "nonsense", "values": {}})
    told = [text for key, texts in catalogue().items() if key.startswith("fact.") for text in texts.values()]
    assert len(told) > 80 and all(text.strip() and not text.endswith(".") for text in told)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_nothing_heavy_is_imported_until_a_table_is_read():
    code = "import sys, chainrule.data.tabular; print([m for m in ('pandas', 'sklearn', 'scipy') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_prediction_needs_no_scikit_learn():
    preparation = json.dumps(Preparation.fit(bundled("iris").frame, "species").to_json())
    code = (
        "import sys, json; sys.modules['sklearn'] = None\n"
        "from chainrule.data.tabular import *\n"
        f"preparation = Preparation.from_json(json.loads({preparation!r}))\n"
        "print(preparation.transform(bundled('iris').frame).shape)"
    )
    assert run_python(code).stdout.strip() == "(150, 4)"


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        MissingExtraError, match=r"needs pandas and scikit-learn: pip install 'chainrule\[tabular\]'"
    ):
        bundled("iris")


def test_the_examples_in_the_docstrings():
    import doctest
    import importlib

    count = 0
    for name in [
        "tabular",
        "bundled",
        "cells",
        "facts",
        "inference",
        "preparation",
        "reading",
        "splitting",
        "writing",
    ]:
        module = importlib.import_module(f"chainrule.data.{name}")
        failed, attempted = doctest.testmod(module)
        assert failed == 0, name
        count += attempted
    assert count >= 25 and all(hasattr(tabular, name) for name in tabular.__all__)
    assert sklearn.__version__


# ---- What gives the target away, and what is worth knowing ------------------------------------------------------


def planned(frame, target="y", **options):
    """The facts of a plan, by key."""
    from chainrule.data.reading import Reading, Table
    from chainrule.train.tabular import plan_table

    table = Table(frame, Reading("t.csv", "utf-8", ",", *frame.shape, ()))
    plan = plan_table(table, target, **options)
    return {entry.key: entry for entry in (*plan.leaks, *plan.notes)}


def leaky(rows=60):
    random = np.random.default_rng(0)
    return pandas.DataFrame({"x": random.normal(size=rows), "y": random.choice(["yes it is", "no"], rows)})


def test_an_identical_copy_of_the_target_is_refused_by_name():
    frame = leaky().assign(answer=lambda table: table["y"])
    with pytest.raises(
        DataError, match=r"column 'answer' is an identical copy of the target 'y'.*--skip answer"
    ) as caught:
        planned(frame)
    assert "목표 'y'와 똑같은 사본" in caught.value.fact.told("ko")
    assert not planned(frame, kinds={"answer": "skip"}).keys() & {"leak_classes"}
    numbers = pandas.DataFrame(
        {"x": np.arange(40.0) % 7, "y": np.arange(40.0), "z": [f"{k}.0" for k in range(40)]}
    )
    with pytest.raises(DataError, match="column 'z' is an identical copy of the target 'y'"):
        planned(numbers)
    with_holes = leaky().assign(answer=lambda table: table["y"])
    with_holes.loc[::3, "y"] = None
    with pytest.raises(DataError, match="identical copy"):
        planned(with_holes)


def test_a_column_that_stands_for_the_classes_is_pointed_out():
    frame = leaky().assign(code=lambda table: (table["y"] == "no") * 7 + 1)
    found = planned(frame)["leak_classes"]
    assert str(found).startswith(
        "column 'code' gives the target away: each of its values stands for one class"
    )
    assert (
        "--skip code" in found.told("en")
        and "--skip code" in found.told("ko")
        and "그대로 알려" in found.told("ko")
    )
    frame.loc[0, "code"] = 9
    assert "leak_classes" not in planned(frame)
    assert "leak_classes" not in planned(leaky(12).assign(code=lambda table: (table["y"] == "no") * 1)), (
        "by chance"
    )


def test_the_target_in_another_unit_is_pointed_out():
    random = np.random.default_rng(0)
    metres = random.normal(1.7, 0.1, 50).round(3)
    frame = pandas.DataFrame({"z": random.normal(size=50), "feet": (metres * 3.28084).round(9), "y": metres})
    assert str(planned(frame)["leak_unit"]).startswith(
        "column 'feet' gives the target away: it is 'y' in another unit"
    )
    frame["feet"] = metres + random.normal(0, 0.001, 50)
    assert "leak_unit" not in planned(frame)


def test_rare_classes_are_pointed_out():
    frame = leaky(100)
    frame["y"] = ["usual"] * 90 + ["rare"] * 10
    found = planned(frame)["imbalance"]
    assert str(found).startswith(
        "class 'rare' has 10.0% of the rows, 'usual' 9 times as many: look at macro-F1"
    )
    assert "--class-weight balanced" in found.told("ko") and "'rare'는 행의 10.0%" in found.told("ko")
    from chainrule.train.tabular import Settings

    balanced = planned(frame, settings=Settings(class_weight="balanced"))
    assert "imbalance" not in balanced and "weighted so that every class counts alike" in str(
        balanced["imbalance_balanced"]
    )
    assert not {"imbalance", "imbalance_balanced"} & planned(leaky()).keys()


def test_scales_and_far_values_are_said():
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "small": random.normal(0, 1e-3, 400),
            "large": random.normal(0, 1e3, 400),
            "y": random.normal(size=400),
        }
    )
    found = planned(frame)
    assert "columns of numbers (2) are scaled to mean 0 and deviation 1" in str(found["scaled_unequal"])
    assert "('small')" in str(found["scaled_unequal"]) and "('large')" in found["scaled_unequal"].told("ko")
    assert "far_values" not in found
    frame.loc[7, "small"] = 5.0
    found = planned(frame)["far_values"]
    assert str(found).startswith("far from the rest: 5 in 'small' is ") and "동떨어진 값" in found.told("ko")
    assert "scaled" in planned(frame[["large", "y"]])


def test_every_fault_is_told_in_both_languages():
    """Each sentence of a fault is raised somewhere, and its Korean is Korean."""
    import pathlib
    import re

    source = "".join(
        path.read_text(encoding="utf-8") for path in pathlib.Path(tabular.__file__).parents[1].rglob("*.py")
    )
    for key, sentences in catalogue().items():
        room, _, name = key.partition(".")
        if room in ("fault", "usage"):
            assert re.search("[가-힣]", sentences["ko"]) and not re.search("[가-힣]", sentences["en"]), key
            used = f'"{name}"' in source or name in ("no_whole", "no_number")
            assert used, f"{key} is never said"


BAD_CELLS = pandas.DataFrame({"n": ["1", "2", "3"] * 10, "y": ["a", "b", "a"] * 10})


@pytest.mark.parametrize(
    ("change", "english", "korean"),
    [
        ({"n": [None] * 30}, "'n', all skipped", "'n'뿐이며 모두 건너뛰었습니다"),
        ({"y": ["a"] * 30}, "got 'a' in every row", "모든 행의 값이 'a'입니다"),
        ({"y": [None] * 30}, "got none in 30 rows", "30개 행에 값이 하나도 없습니다"),
        ({"y": [f"w{k}" for k in range(30)]}, "needs several rows for each class", "클래스마다 행이 여럿"),
        ({"n": [*(str(k / 7) for k in range(29)), "inf"]}, "got 'inf' in row 30", "30행에 'inf'가 있습니다"),
        ({"n": [*(str(k / 7) for k in range(29)), "x1"]}, "got 'x1' in row 30", "30행에 'x1'이 있습니다"),
    ],
)
def test_tables_that_cannot_be_learnt_are_told_in_both_languages(change, english, korean, tmp_path, capsys):
    from chainrule.cli import main

    write_table(BAD_CELLS.assign(**change), tmp_path / "t.csv")
    for language, words in (("en", english), ("ko", korean)):
        code = main(
            [
                "train",
                str(tmp_path / "t.csv"),
                "--target",
                "y",
                "--lang",
                language,
                "--out",
                str(tmp_path / "r"),
            ]
        )
        assert code == 2 and words in capsys.readouterr().err


def test_missing_values_are_learnt_and_not_an_error(tmp_path):
    frame = leaky()
    frame.loc[::4, "x"] = np.nan
    assert Preparation.fit(frame, "y").feature_names == ("x", "x (missing)")


def test_several_missing_columns_are_named_at_once():
    frame = bundled("iris").frame
    preparation = Preparation.fit(frame, "species")
    with pytest.raises(
        DataError, match=r"the table lacks 2 columns .*'sepal_length_cm', 'petal_width_cm'; it has"
    ) as caught:
        preparation.transform(frame[["sepal_width_cm", "petal_length_cm"]])
    assert "학습에 쓴 열 2개가 표에 없습니다" in caught.value.fact.told("ko")


def test_how_unseen_values_were_treated_is_said():
    frame = pandas.DataFrame({"c": ["a"] * 150 + ["b"] * 148 + ["r1", "r2"], "y": ["0", "1"] * 150})
    facts: list[Fact] = []
    Preparation.fit(frame, "y").transform(pandas.DataFrame({"c": ["new", None]}), facts)
    assert keys(facts) == ["unseen_missing_level", "unseen_levels_rare"]
    assert "like the rare values of training" in str(facts[1]) and "드문 값처럼" in facts[1].told("ko")
    facts = []
    Preparation.fit(frame.iloc[:298], "y").transform(pandas.DataFrame({"c": ["new"]}), facts)
    assert "as none of the known values" in str(facts[0])
