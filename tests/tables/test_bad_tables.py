"""Files that do not serve: one line that says what is wrong where, and nothing is written."""

import os
import sys

import numpy as np
import pytest
from table_files import Standard, columns, text, written

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")

from fastdrop import TableModel
from fastdrop.commands.main import main
from fastdrop.tables import text as texts

GOOD = {name: values for name, values in columns(40).items() if name != "verdict"}
LINES = text(GOOD).splitlines(keepends=True)


def with_column(name, values):
    return text(GOOD | {name: values}).encode()


BAD = {
    "empty": (b"", "expected a header and rows, got an empty file"),
    "blank lines": (b"\n\n\n", "expected a header and rows, got an empty file"),
    "header only": (LINES[0].encode(), "expected a header and at least 2 rows with a value"),
    "header only, and no end of the line": (
        LINES[0].strip().encode(),
        "expected a header and at least 2 rows with a value",
    ),
    "one row": ("".join(LINES[:2]).encode(), "at least 2 rows with a value in 'price', got 1"),
    "no target column": (
        LINES[0].replace("price", "prise").encode() + b"1,a,2020-01-01,true,2\n",
        "target: expected one of its columns.*, got 'price'; did you mean prise",
    ),
    "duplicate names": (LINES[0].replace("town", "size").encode(), "one column 'size', got 2"),
    "duplicate but for blanks": (
        LINES[0].replace("town", " size").encode(),
        "one column 'size', got 2",
    ),
    "short line": (
        ("".join(LINES[:3]) + "1,Ulm\n" + "".join(LINES[3:])).encode(),
        "line 4: expected 5 cells as in the header, got 2",
    ),
    "long line": (
        ("".join(LINES[:3]) + "1,2,3,4,5,6\n" + "".join(LINES[3:])).encode(),
        "line 4: expected 5 cells as in the header, got 6",
    ),
    "open quote": (
        ("".join(LINES[:3]) + '1,"Ulm,2\n' + "".join(LINES[3:])).encode(),
        "expected 5 cells as in the header, got 2",
    ),
    "NUL byte": ("".join(LINES).encode().replace(b"Ulm", b"U\0m"), "expected text, got NUL bytes"),
    "NUL byte behind the head": (
        ("".join(LINES) + LINES[1] * 40_000).encode() + b"1,\0,2024-01-01,true,3\n",
        "expected text, got NUL bytes",
    ),
    "UTF-16": ("".join(LINES).encode("utf-16"), "expected text in UTF-8, got UTF-16"),
    "UTF-16 without a mark": ("".join(LINES).encode("utf-16-le"), "expected text, got NUL bytes"),
    "Latin-1": (
        "".join(LINES).replace("Ulm", "Köln").encode("latin-1"),
        "column 'town': expected text in UTF-8",
    ),
    "Latin-1 in the header": (
        "".join(LINES).replace("size", "größe").encode("latin-1"),
        "expected text in UTF-8",
    ),
    "a workbook": (b"PK\x03\x04" + bytes(100), "got a zip file or a workbook; save it as CSV"),
    "cut gzip": (b"\x1f\x8b\x08\x00" + bytes(10), "expected"),
    "infinity": (with_column("x", [1.5, float("inf")] * 20), "column 'x': .*finite.*, got inf in"),
    "too large for float64": (
        with_column("x", ["1e400", "1.5"] * 20),
        "column 'x': expected finite numbers, got inf",
    ),
    "infinite target": (
        with_column("price", [1.5, float("-inf")] * 20),
        "column 'price': expected finite numbers, got -inf",
    ),
    "a target that is too large": (
        with_column("price", ["1e308", "-1e307", "0.5", "2.5"] * 10),
        "target: expected numbers of at most 1e.300, got 1e.308 in 'price'",
    ),
    "decimal commas": (
        with_column("x", ['"1,5"', '"2,5"', '"3"', '"4,25"'] * 10),
        "column 'x': expected numbers with a decimal point, got '1,5' with a comma",
    ),
    "numbers and words": (
        with_column("x", [f"{i}.5" for i in range(39)] + ["unknown"]),
        "column 'x': expected one kind of cells.* such as '0.5' and words such as 'unknown'",
    ),
    "dates and words": (
        with_column("x", [f"2020-01-{i % 28 + 1:02}" for i in range(39)] + ["soon"]),
        "column 'x': expected one kind of cells.* such as '2020-01-01' and words such as 'soon'",
    ),
    "decimal commas in the target": (
        with_column("price", [f'"{i},5"' for i in range(40)]),
        "column 'price': expected numbers with a decimal point, got '0,5'",
    ),
    "a target of one value": (
        with_column("price", [7] * 40),
        "target: expected at least 2 classes in 'price' .*, got '?7'? in all",
    ),
    "a target of one word": (
        with_column("price", ["dear"] * 40),
        "target: expected at least 2 classes in 'price' .*, got 'dear' in all",
    ),
    "a target without values": (with_column("price", [""] * 40), "at least 2 rows with a value"),
    "hardly more rows than classes": (
        with_column("price", [f"class {i}" for i in range(40)]),
        "target: column 'price': expected classes of several samples each, got 40 distinct",
    ),
    "a target of dates": (
        with_column("price", [f"2020-01-{i % 28 + 1:02}" for i in range(40)]),
        "target: expected numbers or words, got dates in 'price'",
    ),
    "nothing to learn from": (
        b"price,size\n" + b"".join(b"%d.5,7\n" % i for i in range(40)),
        "expected a column to learn from besides the target",
    ),
}


def refused(capsys, status):
    """The one line on standard error."""
    assert status == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert len(line) <= 200
    return line


@pytest.mark.parametrize("case", BAD)
def test_bad_files_to_train_on(tmp_path, capsys, case):
    content, message = BAD[case]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        TableModel(epochs=1).fit(path, "price", verbose=0)
    assert str(error.value).startswith(f"{path}: ")
    out = tmp_path / "out"
    line = refused(capsys, main(["train", str(path), "--target", "price", "--out", str(out)]))
    assert str(path) in line
    assert not out.exists()


def test_the_same_of_standard_input(capsys, monkeypatch):
    for content, message in BAD.values():
        monkeypatch.setattr(sys, "stdin", Standard(content))
        with pytest.raises(ValueError, match=message.replace("line 4: ", "")) as error:
            TableModel(epochs=1).fit("-", "price", verbose=0)
        assert str(error.value).startswith("standard input: ")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    TableModel(hidden=(8,), epochs=1).fit(GOOD, "price", verbose=0).save(path)
    return path


TO_PREDICT = {
    **{
        name: BAD[name]
        for name in (
            *("empty", "blank lines", "duplicate names", "short line", "long line", "open quote"),
            *("NUL byte", "NUL byte behind the head", "UTF-16", "Latin-1", "a workbook"),
        )
    },
    "header only": (LINES[0].encode(), "expected rows below the header, got none"),
    "a column missing": (
        text({n: v for n, v in GOOD.items() if n != "size"}).encode(),
        "expected the columns that the model was trained on, got none of the name 'size'",
    ),
    "two columns missing": (
        text({n: v for n, v in GOOD.items() if n not in ("size", "town")}).encode(),
        "got none of the names 'size', 'town'",
    ),
    "words for numbers": (
        with_column("size", [*["1.5"] * 39, "large"]),
        "line 41, column 'size': expected a number, with a decimal point, got 'large'",
    ),
    "decimal commas": (
        with_column("size", ['"1,5"'] * 40),
        "line 2, column 'size': expected a number, with a decimal point, got '1,5'",
    ),
    "numbers for dates": (with_column("sold", [7] * 40), "column 'sold': expected a date such as"),
    "words for flags": (
        with_column("new", ["maybe"] * 40),
        "column 'new': expected true or false, got 'maybe'",
    ),
    "infinity": (with_column("size", ["inf"] * 40), "column 'size': expected finite numbers"),
    "header only, and no end of the line": (
        LINES[0].strip().encode(),
        "expected rows below the header, got none",
    ),
    "infinity in a later block": (
        ("".join(LINES) + LINES[1] * 60_000 + "inf" + LINES[1][LINES[1].index(",") :]).encode(),
        "column 'size': expected finite numbers, got inf in row 60041",
    ),
    "a column of almost the name": (
        LINES[0].replace("size", "Size").encode() + LINES[1].encode(),
        "got none of the name 'size'; did you mean Size?",
    ),
    "a zone that no date had": (
        with_column("sold", ["2020-01-02T12:00:00+01:00"] * 40),
        "got '2020-01-02T12:00:00.01:00', with a zone, other than those to train on",
    ),
    "far too large": (
        with_column("size", ["1e300"] * 40),
        "column 'size': expected numbers about as large as those to train on, got 1e.300",
    ),
}


@pytest.mark.parametrize("case", TO_PREDICT)
def test_bad_files_to_predict(tmp_path, capsys, model, case):
    content, message = TO_PREDICT[case]
    path, out = tmp_path / "t.csv", tmp_path / "p.csv"
    path.write_bytes(content)
    if not case.startswith("header only"):
        with pytest.raises(ValueError, match=message):
            TableModel.load(model).predict(path)
    line = refused(capsys, main(["predict", str(model), str(path), "--out", str(out)]))
    assert str(path) in line
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("size", ["large"] * 3),
        ("size", [[1.0]] * 3),
        ("town", [[1.0]] * 3),
        ("sold", ["soon"] * 3),
        ("sold", [1, 2, 3]),
        ("sold", [1.5] * 3),
        ("sold", [True] * 3),
        ("sold", pa.array([0] * 3, pa.timestamp("us", "UTC"))),
        ("sold", pa.array([0] * 3, pa.time64("us"))),
        ("size", np.array(["2020-01-01"] * 3, "datetime64[D]")),
        ("new", ["maybe"] * 3),
        ("new", [0, 1, 2]),
        ("new", [0.5] * 3),
        ("new", np.array(["2020-01-01"] * 3, "datetime64[D]")),
    ],
)
def test_columns_of_other_kinds_in_memory(model, name, values):
    rows = {column: each[:3] for column, each in GOOD.items()}
    with pytest.raises(ValueError, match=f"column '{name}': expected") as error:
        TableModel.load(model).predict(rows | {name: values})
    assert len(str(error.value)) <= 200


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, pa.nulls(3)) for name in ("size", "town", "sold", "new")),
        ("size", [1, 2, 3]),
        ("size", ["1", "2.5", None]),
        ("size", pa.array([1, 2, None], pa.decimal128(9, 2))),
        ("size", pa.array([2**60, 1, 2])),
        ("town", [1, 2, 3]),
        ("town", pa.array(["Ulm", "Jena", None]).dictionary_encode()),
        ("town", pa.array(["Ulm", "Jena", None], pa.large_string())),
        ("sold", ["2020-01-01", "2020-12-31T23:59:59", None]),
        ("sold", pa.array([1, 2, None], pa.timestamp("ns"))),
        ("new", [0, 1, None]),
        ("new", [1.0, 0.0, None]),
        ("new", ["true", "false", None]),
    ],
)
def test_columns_in_memory_may_be_of_any_type_of_their_kind(model, name, values):
    rows = {column: each[:3] for column, each in GOOD.items()}
    assert np.isfinite(TableModel.load(model).predict(rows | {name: values})).all()


@pytest.mark.parametrize("dtype", [pa.time32("s"), pa.time64("us"), pa.time64("ns")])
def test_times_of_a_day_in_memory(dtype):
    values = pa.array([86_000 // (i + 1) for i in range(40)], pa.int32()).cast(pa.time32("s"))
    table = GOOD | {"at": values.cast(dtype)}
    model = TableModel(hidden=(4,), epochs=1).fit(table, "price", verbose=0)
    np.testing.assert_array_equal(model.predict(table), model.predict(table | {"at": values}))
    with pytest.raises(ValueError, match=r"'at': expected times of a day, .*, got words"):
        model.predict(table | {"at": ["12:00:00"] * 40})


WEIGHTS = {
    "negative": ([-1] + [1] * 39, "float32 holds in every row, got -1 in 'w'"),
    "missing": ([""] + [1] * 39, "in every row, got none in 'w'"),
    "infinite": (["inf"] + [1] * 39, "column 'w': expected finite numbers, got inf in row 1"),
    "too large": (["1e300"] + [1] * 39, "got 1e.300 in 'w'"),
    "zero": ([0] * 40, "expected some above 0 among the rows to train on, got none in 'w'"),
    "too small": (["1e-300"] * 40, "expected some above 0 among the rows to train on"),
    "words": (["a"] * 40, "expected numbers, got words in 'w'"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(tmp_path, capsys, case):
    values, message = WEIGHTS[case]
    path, out = tmp_path / "t.csv", tmp_path / "out"
    path.write_bytes(with_column("w", values))
    with pytest.raises(ValueError, match=message):
        TableModel(epochs=1).fit(path, "price", weight="w", verbose=0)
    options = ["--target", "price", "--weight", "w", "--out", str(out)]
    refused(capsys, main(["train", str(path), *options]))
    assert not out.exists()


def test_rows_in_messages_are_those_of_the_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(text(GOOD | {"price": [None] * 9 + [*GOOD["price"][9:]]}).encode())
    lines = path.read_text().splitlines()
    lines[21] = "inf" + lines[21][lines[21].index(",") :]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"column 'size': .* got inf in row 21"):
        TableModel(epochs=1).fit(path, "price", verbose=0)


def test_a_table_without_columns():
    with pytest.raises(ValueError, match="table: expected columns, got none"):
        TableModel(epochs=1).fit({}, "price", verbose=0)


def test_a_mark_of_utf_8_is_none_of_the_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "".join(LINES).encode())
    model = TableModel(hidden=(4,), epochs=1).fit(path, "price", verbose=0)
    assert "size" in model.encoding.types


LATER = {
    "fractions": (["1"], ["2.5"], "number, standardised"),
    "large numbers": (["1"], ["99999999999999999999"], "number, standardised"),
    "words": (["1"], ["a"] * 1000 + ["b"] * 1000, "words, one-hot"),
    "words after flags": (["true", "false"], ["maybe"] * 1000, "words, one-hot"),
    "times of a day": (["2020-01-01"], ["2020-01-02T12:00:00"], "date, standardised"),
    "fractions of seconds": (["2020-01-01 10:00:00"], ["2020-01-02 12:00:00.5"], "date, standard"),
    "numbers after nothing": ([""], ["1", "2", "3.5"] * 999, "number, standardised"),
    "dates after nothing": ([""], ["2020-01-01", "2020-01-02"] * 999, "date, standardised"),
    "words after nothing": ([""], ["a", "b"] * 999, "words, one-hot"),
}


@pytest.mark.parametrize("case", LATER)
def test_kinds_are_those_of_all_rows(tmp_path, monkeypatch, case):
    """Arrow finds them in the first block; what comes later may be of a looser kind."""
    monkeypatch.setattr(texts, "SMALL_BLOCK", 1 << 12)
    first, later, line = LATER[case]
    rows = 4000
    cells = [first[i % len(first)] for i in range(rows - len(later))] + later
    path = tmp_path / "t.csv"
    path.write_text(
        "".join(["price,x,n\n"] + [f"{i % 7}.5,{c},{i % 5}\n" for i, c in enumerate(cells)])
    )
    model = TableModel(hidden=(4,), epochs=1).fit(path, "price", verbose=0)
    (told,) = [each for each in model.lines if each.startswith("  x: ")]
    assert line in told
    assert model.predict(path).shape == (rows,)


def test_semicolons_and_tabs_between_cells(tmp_path):
    for delimiter in (";", "\t"):
        path = tmp_path / "t.csv"
        path.write_text(text(GOOD, delimiter))
        model = TableModel(hidden=(4,), epochs=1).fit(path, "price", verbose=0)
        assert list(model.encoding.types) == ["size", "town", "sold", "new"]


def test_line_breaks_and_delimiters_in_quotes(tmp_path):
    towns = ['"Ulm,\nam Fluss"', '"Jena ""Ost"""'] * 20
    path = tmp_path / "t.csv"
    path.write_bytes(with_column("town", towns).replace(b"\n", b"\r\n"))
    model = TableModel(hidden=(4,), epochs=1).fit(path, "price", verbose=0)
    (town,) = [each for each in model.encoding.columns if each.name == "town"]
    assert town.words == ('Jena "Ost"', "Ulm,\r\nam Fluss")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize("what", ["grew", "shrank"])
def test_a_file_that_somebody_writes_to_is_refused(tmp_path, monkeypatch, name, what):
    path = written(tmp_path / name, GOOD)
    before = texts._Watched.read

    def read_while_somebody_writes(self, size=-1):
        if what == "grew":
            with open(path, "ab") as file:
                file.write(b"\n")
        else:
            os.truncate(path, path.stat().st_size - 1)
        return before(self, size)

    monkeypatch.setattr(texts._Watched, "read", read_while_somebody_writes)
    with pytest.raises(ValueError, match=f"expected a file that nobody writes to, .* {what}"):
        TableModel(epochs=1).fit(path, "price", verbose=0)


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + bytes(100), b"no Parquet"])
def test_damaged_parquet(tmp_path, content):
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.parquet: expected a whole Parquet file"):
        TableModel(epochs=1).fit(path, "price", verbose=0)


def test_columns_of_mixed_kinds_of_pandas():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(GOOD | {"x": [1, "a"] * 20})
    with pytest.raises(ValueError, match="table: expected columns of one kind each") as error:
        TableModel(epochs=1).fit(frame, "price", verbose=0)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an existing file"):
        TableModel(epochs=1).fit(tmp_path, "price", verbose=0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = written(tmp_path / "t.csv", GOOD)
    path.chmod(0)
    with pytest.raises(PermissionError):
        TableModel(epochs=1).fit(path, "price", verbose=0)
