"""From a file to a table of text: encoding, delimiter, rows, each decision stated and each fault named.

What the text of a cell means is not decided here; see `cells` and `schema`. A few decisions on files:

- The encoding is the byte order mark's; else UTF-16 or UTF-32 if zeros beside digits show it; else UTF-8 if that fits;
  else cp949 if the rest then is Korean; else the best guess of charset-normalizer; else cp1252 or latin-1.
- The delimiter is the one of `, ; tab |` with which the rows agree best with the header; commas win a tie.
- The first line holds the column names. Two columns of one name are refused. A column without a name gets one.
- Every row has as many fields as the header. Blank lines are skipped; a row of empty fields is a row.
- White space around a cell is dropped, and the words of `cells.MISSING` become missing values.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import difflib
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingExtraError
from . import extras
from .cells import MISSING, Cell, is_number
from .facts import DELIMITERS, Fact, Fault, fact, fault, quoted

if TYPE_CHECKING:
    import pandas

# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip

# How files begin that are often mistaken for CSV.
_OTHER_FORMATS = (
    (b"PK\x03\x04", "excel_or_zip"), (b"\xd0\xcf\x11\xe0", "old_excel"),
    (b"\x1f\x8b", "gzip"), (b"PAR1", "parquet"), (b"%PDF", "pdf"),
    (b"SQLite format 3", "sqlite"), (b"<!doctype", "web_page"), (b"<html", "web_page"),
)  # fmt: skip

_SAMPLE_ROWS = 100


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file was read: plain facts for a report."""

    path: str
    encoding: str
    delimiter: str
    rows: int
    columns: int
    facts: tuple[Fact, ...]


class Table(NamedTuple):
    """What `read_table` returns. Every cell of `frame` is text, or None where it is missing."""

    frame: pandas.DataFrame
    reading: Reading


def read_table(
    path: str | os.PathLike[str], *, encoding: str | None = None, delimiter: str | None = None
) -> Table:
    """Reads a CSV file into a table of text, and says how it was read.

    Returns `(frame, reading)`. Cells keep the file's own text (`007`, `0.10`), so that a table can be written
    back unchanged; `infer_schema` decides what they mean. Rows count from 0 in `frame.index`.

    Raises DataError for a file that is missing, not a file, empty, without rows, not text or damaged: the
    message names the line and the fix. Raises MissingExtraError without pandas.

    >>> from chainrule.data.tabular import bundled
    >>> frame, reading = bundled("iris")
    >>> frame.shape, reading.encoding, reading.delimiter
    ((150, 5), 'utf-8', ',')
    """
    pandas = extras.load("pandas")
    name = os.fspath(path)
    data = _read_bytes(name)
    text, encoding, encoding_fact = _decode(name, data, encoding)
    _refuse_nul(name, text)
    with _cells_of_any_length(text):
        text, delimiter, delimiter_fact = _find_delimiter(text, delimiter)
        header, cells, blank = _cells(name, text, delimiter)
    header, header_facts = _name_columns(name, header)
    if not len(cells):
        raise fault("only_names", file=quoted(name, 200))
    blank_facts = [fact("blank_lines", count=blank)] if blank else []
    facts = (encoding_fact, delimiter_fact, *header_facts, *blank_facts)
    # As objects, pandas guesses no types and keeps None, alike in its versions 2 and 3.
    frame = pandas.DataFrame(cells, columns=header, dtype=object)
    return Table(frame, Reading(name, encoding, delimiter, len(cells), len(header), facts))


@contextlib.contextmanager
def _cells_of_any_length(text: str) -> Iterator[None]:
    """Python's reader takes cells up to a length that is set for the whole process: 131,072 letters."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, len(text) + 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_bytes(name: str) -> bytes:
    """The whole file; every reason why it cannot be had is a DataError."""
    where = quoted(name, 200)
    if os.path.isdir(name):
        raise fault("folder", file=where)
    if not os.path.exists(name):
        raise fault("no_file", file=where, advice=_neighbours(name))
    if not os.path.isfile(name):
        raise fault("no_regular_file", file=where)
    try:
        with open(name, "rb") as file:
            data = file.read()
    except OSError as error:
        raise fault("unreadable", file=where, reason=error.strerror) from error
    if not data.strip(b" \t\r\n\xef\xbb\xbf\xff\xfe\0"):
        raise fault("empty_file", file=where)
    for start, format_name in _OTHER_FORMATS:
        if data[: len(start)].lower() == start.lower():
            raise fault("other_format", format=Fault(format_name, {}), file=where)
    return data


def _refuse_nul(name: str, text: str) -> None:
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise fault("nul", line=line, file=quoted(name, 200))


def _neighbours(name: str) -> Fault:
    """`Did you mean 'data.csv'?` when the folder holds a file of nearly that name, or the general advice."""
    try:
        candidates = os.listdir(os.path.dirname(name) or ".")
    except OSError:
        candidates = []
    close = difflib.get_close_matches(os.path.basename(name), candidates, n=1)
    return Fault("did_you_mean", {"names": repr(close[0])}) if close else Fault("check_path", {})


def _decode(name: str, data: bytes, asked: str | None) -> tuple[str, str, Fact]:
    """The text, the name of its encoding and why that one."""
    if asked is not None:
        try:
            return data.decode(asked), asked, fact("encoding_asked", encoding=asked)
        except LookupError as error:
            raise fault("unknown_encoding", encoding=repr(asked)) from error
        except UnicodeError as error:
            raise _undecodable(name, asked, error) from error
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), encoding, fact("encoding_mark", encoding=encoding)
            except UnicodeError as error:
                raise _undecodable(name, encoding, error) from error
    if (wide := _wide_encoding(data)) is not None:
        return data.decode(wide), wide, fact("encoding_zeros", encoding=wide)
    try:
        return data.decode("utf-8"), "utf-8", fact("encoding_utf8")
    except UnicodeDecodeError:
        return _guess_encoding(data)


def _wide_encoding(data: bytes) -> str | None:
    """The encoding of two or four bytes for each letter without a mark: ASCII letters then have zeros beside them."""
    if 8 * data.count(0) < len(data):  # a few zeros are damage
        return None
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        try:
            text = data.decode(encoding)
        except UnicodeError:
            continue
        # Read in the wrong order, a line's end is the letter ਀ and a digit one of a Chinese script.
        if "\0" not in text and "\n" in text and _is_plausible(text):
            return encoding
    return None


def _is_plausible(text: str) -> bool:
    """Whether lines, delimiters and digits are there as in a table; ends of lines in the other order are not."""
    text = text[:10_000]
    usual = sum(letter in "\n,;\t|.0123456789 " for letter in text)
    swapped = sum(letter in "\u0a00\u2c00\u3b00\u0900\u7c00\u2e00\u3000\u3100\u3200\u2000" for letter in text)
    return usual > swapped and 10 * usual >= len(text)


def _undecodable(name: str, encoding: str, error: UnicodeError) -> DataError:
    values = {"encoding": encoding, "file": quoted(name, 200)}
    if isinstance(error, UnicodeDecodeError):
        return fault("undecodable_at", byte=error.start, **values)
    return fault("undecodable", **values)


def _guess_encoding(data: bytes) -> tuple[str, str, Fact]:
    """The reading of text that is not UTF-8."""
    share = _korean_share(data)
    if share >= 0.8:
        return data.decode("cp949"), "cp949", fact("encoding_cp949", share=share)
    # Only lines with other than ASCII bytes say anything, and the guess is slow on long texts.
    telling = b"\n".join(line for line in data.splitlines() if not line.isascii())[:50_000]
    try:
        best = extras.load("charset_normalizer").from_bytes(telling).best()
    except MissingExtraError:  # without the guess there is still the usual code page
        best = None
    if best is not None and _is_other_alphabet(str(best)):
        try:
            return data.decode(best.encoding), best.encoding, fact("encoding_guessed", encoding=best.encoding)
        except UnicodeError:
            pass  # the guess fits the sample and not the whole file
    # The Western code pages differ in rare characters only, where a guess is no better than the usual one.
    for encoding in ("cp1252", "latin-1"):
        try:
            return data.decode(encoding), encoding, fact("encoding_fallback", encoding=encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 reads every byte")


def _korean_share(data: bytes) -> float:
    """The share of Hangul of the standard KS X 1001 among the bytes beyond ASCII, 0 if they are not cp949.

    Text in other encodings can be valid cp949 by chance; then it falls on rare Hanja or on the extension's
    syllables, whose second byte may be ASCII, and hardly ever on the common Hangul.
    """
    try:
        text = data.decode("cp949")
    except UnicodeDecodeError:
        return 0.0
    pairs = len(text) - sum(map(str.isascii, text))
    hangul = sum(1 for letter in text if "가" <= letter <= "힣" and letter.encode("cp949")[1] >= 0xA1)
    return hangul / pairs if pairs else 0.0


def _is_other_alphabet(text: str) -> bool:
    """Whether the text really is in another alphabet than ours: most words that are not ASCII have no Latin letter.

    Accented words in a wrong guess show themselves by letters of two alphabets, as in `Grﺉﻑe` for `Größe`.
    """
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    other = sum(
        not any(unicodedata.name(letter, "").startswith("LATIN") for letter in word) for word in words
    )
    return 2 * other > len(words)


def _find_delimiter(text: str, asked: str | None) -> tuple[str, str, Fact]:
    """The text without a `sep=` line, the delimiter and why that one."""
    declared = re.match(r"sep=(.)\r?\n", text)  # how Excel marks the delimiter of a file
    if declared:
        text = "\n" + text[declared.end() :]  # a blank line in its place keeps the line numbers right
    if asked is not None:
        if len(asked) != 1 or asked in '"\r\n':
            raise fault("long_delimiter", delimiter=repr(asked))
        return text, asked, fact("delimiter_asked", delimiter=_delimiter_name(asked))
    if declared:
        return text, declared[1], fact("delimiter_declared", delimiter=_delimiter_name(declared[1]))
    scores = {delimiter: _agreement(text, delimiter) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: scores[delimiter])  # the first of equals: the comma
    if scores[best] == (0.0, 0):
        return text, ",", fact("delimiter_single")
    if best == ",":
        return text, best, fact("delimiter_comma")
    return text, best, fact("delimiter_found", delimiter=_delimiter_name(best))


def _delimiter_name(delimiter: str) -> str:
    return DELIMITERS.get(delimiter, repr(delimiter))


def _agreement(text: str, delimiter: str) -> tuple[float, int]:
    """The share of the first rows with as many fields as the header, and that number; zeros for one column."""
    counts: list[int] = []
    try:
        for _, row in _records(text, delimiter):
            counts += [len(row)] if row else []
            if len(counts) > _SAMPLE_ROWS:
                break
    except csv.Error:
        pass  # judged by the rows before the fault, which is reported when the file is read
    if not counts or counts[0] == 1:
        return 0.0, 0
    return counts.count(counts[0]) / len(counts), counts[0]


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the number of the line where it begins; a blank line is an empty record."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    line = 1
    for row in reader:
        yield line, row
        line = reader.line_num + 1


def _cells(name: str, text: str, delimiter: str) -> tuple[list[str], NDArray[np.object_], int]:
    """The header, the cells (text or None, shape (rows, columns)), and the count of blank lines below the header."""
    header: list[str] = []
    # One flat list: a list for each row would keep Python's garbage collector busy for most of the time.
    cells: list[Cell] = []
    blank = 0
    try:
        for line, record in _records(text, delimiter):
            if not record:
                blank += bool(header)
            elif not header:
                header = [field.strip() for field in record]
            elif len(record) != len(header):
                raise fault(
                    "uneven_rows", fields=len(header), found=len(record), line=line, file=quoted(name, 200)
                )
            else:
                cells += [None if field in MISSING else field for field in map(str.strip, record)]
    except csv.Error as error:
        line = _last_line(text, delimiter)
        raise fault("open_quote", line=line, file=quoted(name, 200), reason=str(error)) from error
    return header, np.array(cells, dtype=object).reshape(-1, len(header)), blank


def _last_line(text: str, delimiter: str) -> int:
    """The line where the record begins that cannot be read."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    line = 1
    try:
        for _ in reader:
            line = reader.line_num + 1
    except csv.Error:
        pass
    return line


def _name_columns(name: str, header: Sequence[str]) -> tuple[list[str], list[Fact]]:
    """The column names with the empty ones filled, and what there is to say about them."""
    unnamed = [f"unnamed {position}" if not field else "" for position, field in enumerate(header, start=1)]
    names = [new or field for new, field in zip(unnamed, header)]
    repeated = [field for field, count in Counter(names).items() if count > 1]
    if repeated:
        raise fault("repeated_names", names=repeated, file=quoted(name, 200))
    facts = []
    if any(unnamed):
        facts.append(fact("unnamed_columns", names=[new for new in unnamed if new]))
    numbers = [field for field in header if is_number(field) and not field.isdigit()]
    if numbers:
        facts.append(fact("numeric_header", names=numbers))
    return names, facts
