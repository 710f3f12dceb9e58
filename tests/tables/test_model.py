"""TableModel: from tables of any form to predictions, and from a file to the same ones."""

import sys

import numpy as np
import pytest
from table_files import Standard, columns, text, written

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra tables")

from fastdrop import Sequential, TableModel, load_model
from fastdrop.layers import Dense, Input
from fastdrop.optimizers import Adam

SMALL = {"hidden": (16,), "epochs": 2, "batch_size": 32}


def fitted(table=None, target="price", **options):
    return TableModel(**SMALL).fit(
        columns() if table is None else table, target, verbose=0, **options
    )


def without(table, *names):
    return {name: values for name, values in table.items() if name not in names}


@pytest.fixture(scope="module")
def model():
    return fitted(without(columns(), "verdict"))


def in_polars(table, dtype):
    """A DataFrame whose towns are of this type."""
    polars = pytest.importorskip("polars", reason="polars is not installed")
    towns = sorted(set(table["town"].tolist()))
    dtype = polars.Enum(towns) if dtype == "Enum" else getattr(polars, dtype)
    frame = polars.DataFrame({name: values.tolist() for name, values in table.items()})
    return frame.with_columns(polars.col("town").cast(dtype))


FORMS = {
    "dict": lambda folder, table: table,
    "csv": lambda folder, table: written(folder / "t.csv", table),
    "text of a path": lambda folder, table: str(written(folder / "t.csv", table)),
    "tsv": lambda folder, table: written(folder / "t.tsv", table),
    "csv.gz": lambda folder, table: written(folder / "t.csv.gz", table),
    "parquet": lambda folder, table: written(folder / "t.parquet", table),
    "parquet of another name": lambda folder, table: written(folder / "t.parquet", table).rename(
        folder / "data"
    ),
    "arrow": lambda folder, table: pa.table(table),
    "pandas": lambda folder, table: pytest.importorskip("pandas").DataFrame(table),
    "pandas with an index": lambda folder, table: pytest.importorskip("pandas").DataFrame(
        table, index=[f"row {i}" for i in range(len(table["size"]))]
    ),
    "pandas categories": lambda folder, table: (
        pytest.importorskip("pandas").DataFrame(table).astype({"town": "category"})
    ),
    "polars categories": lambda folder, table: in_polars(table, "Categorical"),
    "polars enumeration": lambda folder, table: in_polars(table, "Enum"),
    "chunks with other dictionaries": lambda folder, table: pa.concat_tables(
        [
            part.set_column(1, "town", part["town"].dictionary_encode())
            for part in (pa.table(table).slice(0, 50), pa.table(table).slice(50))
        ]
    ),
    "polars": lambda folder, table: pytest.importorskip("polars").DataFrame(
        {name: values.tolist() for name, values in table.items()}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_a_table_are_the_same(tmp_path, model, form):
    table = columns()
    given = FORMS[form](tmp_path, without(table, "verdict"))
    again = fitted(given)
    assert again.lines == model.lines
    np.testing.assert_array_equal(again.predict(table), model.predict(table))
    np.testing.assert_array_equal(model.predict(given), model.predict(table))


def test_standard_input(monkeypatch, model):
    table = without(columns(), "verdict")
    monkeypatch.setattr(sys, "stdin", Standard(text(table).encode()))
    assert fitted("-").lines == model.lines
    monkeypatch.setattr(sys, "stdin", Standard(text(table).encode()))
    np.testing.assert_array_equal(model.predict("-"), model.predict(table))


def test_order_and_other_columns_do_not_matter(tmp_path, model):
    table = columns(50, seed=1)
    expected = model.predict(table)
    turned = dict(reversed(table.items())) | {"more": np.arange(50)}
    np.testing.assert_array_equal(model.predict(turned), expected)
    np.testing.assert_array_equal(model.predict(written(tmp_path / "a.csv", turned)), expected)


def test_rows_do_not_depend_on_the_others(tmp_path, model):
    table = columns(5000, seed=2)
    expected = model.predict(table)
    from_file = model.predict(written(tmp_path / "a.csv", table))
    np.testing.assert_allclose(from_file, expected, rtol=1e-5)
    some = {name: values[1234:1240] for name, values in table.items()}
    np.testing.assert_allclose(model.predict(some), expected[1234:1240], rtol=1e-5)


def test_what_is_learnt_is_what_counts():
    table = without(columns(2000), "verdict")
    model = TableModel(hidden=(32,), dropout=0, epochs=40).fit(table, "price", verbose=0)
    new = columns(500, seed=3)
    error = model.predict(new) - new["price"]
    assert np.sqrt((error**2).mean()) < 0.25 * new["price"].std()
    assert 0.5 < model.noise / np.sqrt((error**2).mean()) < 2


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e200])
def test_units_of_the_target_do_not_matter(factor):
    table = without(columns(), "verdict")
    expected = fitted(table).predict(table)
    scaled = fitted(table | {"price": table["price"] * factor}).predict(table)
    np.testing.assert_allclose(scaled, expected * factor, rtol=1e-3)


def test_classes(model):
    table = without(columns(400), "price")
    model = TableModel(hidden=(32,), epochs=30).fit(table, "verdict", verbose=0)
    assert model.target.classes == ("cheap", "dear")
    chosen, probabilities = model.predict(table), model.predict_proba(table)
    assert (chosen == table["verdict"]).mean() > 0.8
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (chosen == np.array(model.target.classes)[probabilities.argmax(axis=1)]).all()


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["no", "yes"] * 60, "classification", ("no", "yes")),
        ([True, False] * 60, "classification", (False, True)),
        ([3, 1, 2] * 40, "classification", (1, 2, 3)),
        ([3.0, 1.0, None] * 40, "classification", (1, 3)),
        ([0.5, 1.5] * 60, "regression", ()),
        (list(range(120)), "regression", ()),
        (list(range(60)) * 2, "regression", ()),
    ],
)
def test_the_kind_of_the_target_says_the_task(values, task, classes):
    model = fitted(columns() | {"t": values}, "t")
    assert (model.target.task, model.target.classes) == (task, classes)
    assert any(f"target 't': {task}, by its kind" in line for line in model.lines)


def test_the_task_can_be_set():
    table = columns() | {"t": [3, 1, 2] * 40, "many": list(range(60)) * 2}
    assert fitted(table, "t", task="regression").target.classes == ()
    assert len(fitted(table, "many", task="classification").target.classes) == 60


N = 120
KINDS = {
    "numbers": (np.arange(N) % 7 + 0.5, "number, standardised"),
    "huge numbers": (np.where(np.arange(N) % 2, 1e308, -1e308), "number, standardised"),
    "missing numbers": (
        [None if i % 10 == 0 else i % 7 for i in range(N)],
        "number, standardised, the mean where missing and a flag",
    ),
    "flags": (np.arange(N) % 2 == 0, "flag, standardised"),
    "words": (["a", "b"] * 60, "words, one-hot, 2 words"),
    "blanks around words": (["a", " b", "b ", "a"] * 30, "words, one-hot, 2 words"),
    "missing words": (["a", "b", None] * 40, "words, one-hot, 2 words; missing ones have a place"),
    "rare words": (["a", "b"] * 59 + ["x", "y"], "words, one-hot, 2 words; 2 rare ones share"),
    "dates": (
        np.datetime64("2020-01-01") + np.arange(N).astype("timedelta64[D]") // 2,
        "date, standardised, in days",
    ),
    "dates in text": (
        [f"2020-{i % 12 + 1:02}-17" for i in range(N)],
        "date, standardised, in days",
    ),
    "dates with a time in text": (
        [None if i % 10 == 0 else f"2020-{i % 12 + 1:02}-17 08:30" for i in range(N)],
        "date, standardised, in days, the mean where missing and a flag",
    ),
    "years in text": (["2020", "2021"] * 60, "words, one-hot, 2 words"),
    "times": (
        pa.array((np.arange(N) * 60).tolist(), pa.time32("s")),
        "time, standardised, in seconds",
    ),
    "other dates": ([f"{i % 28 + 1:02}.12.2020" for i in range(N)], "left out: dates, but not all"),
    "ids": (np.arange(N) + 1000, "left out: an id: a different whole number in every row"),
    "ids by name": (np.arange(N) * 3, "number, standardised"),
    "customer_id": (np.arange(N) * 3, "left out: an id"),
    "names": ([f"Person {i}" for i in range(N)], "left out: an id or free text: 120 different"),
    "constant": (np.full(N, 7), "left out: constant: 7"),
    "constant words": (["a"] * N, "left out: constant: 'a'"),
    "only rounding": (np.where(np.arange(N) % 2, 0.1 + 0.2, 0.3), "left out: constant"),
    "empty": ([None] * N, "left out: empty"),
    "near-constant": ([*[1.0] * (N - 1), 2.0], "near-constant: 99.17 % are 1"),
    "near-constant words": ([*["a"] * (N - 1), "b"], "near-constant: 99.17 % are 'a'"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_done_to_a_column_is_told_and_kept(tmp_path, kind):
    values, line = KINDS[kind]
    table = without(columns(), "verdict", "sold") | {kind: values}
    model = fitted(table)
    (told,) = [each for each in model.lines if each.startswith(f"  {kind}: ")]
    assert line in told
    model.save(tmp_path / "model")
    again = TableModel.load(tmp_path / "model")
    assert again.lines == model.lines
    assert (kind in again.encoding.types) == ("left out" not in told)
    np.testing.assert_array_equal(again.predict(table), model.predict(table))


SHIFTED = np.random.default_rng(9).normal(size=N)
LEAKS = {
    "the target in other units": ("price", lambda t: t["price"] / 7.3 + 2),
    "its logarithm": ("price", lambda t: np.log(t["price"])),
    "words for classes": ("verdict", lambda t: np.where(t["verdict"] == "dear", "A", "B")),
    "numbers for classes": ("verdict", lambda t: (t["verdict"] == "dear") + SHIFTED / 100),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_columns_that_give_the_target_away_are_told(leak):
    target, make = LEAKS[leak]
    table = without(columns(), "verdict" if target == "price" else "price")
    assert not any("away" in line for line in fitted(table, target).lines)
    table["leak"] = make(table)
    told = [line for line in fitted(table, target).lines if "away" in line]
    assert len(told) == 1
    assert told[0].startswith("  leak: ")


def test_words_of_one_class_each_are_no_leak_by_chance():
    rng = np.random.default_rng(0)
    table = {"w": [f"{i // 2}x" for i in range(100)], "y": rng.choice(["a", "b"], 50).repeat(2)}
    table |= {"n": rng.normal(size=100)}
    assert not any("away" in line for line in fitted(table, "y").lines)


def test_unseen_and_missing_words_have_places(model):
    table = without(columns(), "verdict")
    rows = {name: values[:3] for name, values in table.items()}
    seen, unseen, nothing = (
        model.predict(rows | {"town": towns})
        for towns in (rows["town"], ["Rome"] * 3, pa.array([None] * 3, pa.string()))
    )
    assert not np.allclose(seen, unseen)
    np.testing.assert_array_equal(unseen, nothing)  # no row to train on lacked it
    first = model.network.layers[0].params["weight"]
    place = model.encoding.untrained()
    assert len(place) == 1
    assert not first[:, place].any()


def test_missing_numbers_are_the_mean_and_a_flag():
    table = without(columns(), "verdict")
    table["size"] = np.where(np.arange(N) % 10 == 0, np.nan, table["size"])
    model = fitted(table)
    (size,) = [each for each in model.encoding.columns if each.name == "size"]
    assert size.flag
    row = {name: values[:1] for name, values in table.items()}
    mean = model.predict(row | {"size": [size.mean]})
    assert model.predict(row | {"size": [np.nan]}) != mean


def test_missing_may_be_refused():
    table = without(columns(), "verdict")
    model = fitted(table, missing="error")
    lacking = table | {"town": [None, *table["town"][1:]]}
    for call in (lambda: fitted(lacking, missing="error"), lambda: model.predict(lacking)):
        with pytest.raises(ValueError, match="column 'town': expected a value in every row"):
            call()


def test_rows_without_a_target_are_left_out():
    table = without(columns(), "verdict")
    model = fitted(table | {"price": [None, None, *table["price"][2:]]})
    assert "2 rows without 'price' are left out" in model.lines
    assert model.trained["rows"] + model.trained["validation rows"] == N - 2


def test_groups_are_on_one_side(monkeypatch):
    table = without(columns(), "verdict") | {"who": [f"w{i % 13}" for i in range(N)]}
    seen = {}
    monkeypatch.setattr(
        Sequential,
        "fit",
        lambda self, x, y, *rest, **more: seen.update(y=y, y_val=more["validation_data"][1]),
    )
    model = fitted(table, group="who")
    standardised = (table["price"] - model.target.mean) / model.target.deviation
    sides = [
        {who for who, y in zip(table["who"], standardised) if np.isclose(y, part, atol=1e-5).any()}
        for part in (seen["y"], seen["y_val"])
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert "who" not in model.encoding.types


def test_the_latest_are_validated_on(monkeypatch):
    table = without(columns(), "verdict")
    seen = {}
    monkeypatch.setattr(
        Sequential,
        "fit",
        lambda self, x, y, *rest, **more: seen.update(y=y, y_val=more["validation_data"][1]),
    )
    model = fitted(table, time="sold")
    standardised = ((table["price"] - model.target.mean) / model.target.deviation).astype("f4")
    dates = [table["sold"][np.isin(standardised, seen[part][:, 0])] for part in ("y", "y_val")]
    assert dates[0].max() < dates[1].min()
    assert len(dates[1]) >= 0.2 * N


def test_weights_count():
    table = without(columns(), "verdict") | {"w": np.arange(N) % 2}
    odd = {name: values[1::2] for name, values in table.items()}
    spoilt = table | {"price": np.where(table["w"], table["price"], 1e6)}
    weighted = TableModel(hidden=(), dropout=0, epochs=60, optimizer=Adam(0.05)).fit(
        spoilt, "price", weight="w", verbose=0
    )
    assert weighted.target.mean != pytest.approx(odd["price"].mean(), rel=0.1)
    assert weighted.predict(odd).mean() == pytest.approx(odd["price"].mean(), rel=0.2)
    assert "w" not in weighted.encoding.types


@pytest.mark.parametrize("how", [{"mc": 30}, {"moments": True}])
def test_uncertainty(how):
    table = without(columns(2000), "verdict")
    model = TableModel(hidden=(32,), dropout=0.1, epochs=30).fit(table, "price", verbose=0)
    new = columns(1000, seed=4)
    said = model.predict_table(new, **how)
    assert said.column_names == ["prediction", "std", "low", "high"]
    low, high = (said.column(name).to_numpy() for name in ("low", "high"))
    inside = ((low <= new["price"]) & (new["price"] <= high)).mean()
    assert 0.9 < inside <= 1
    assert (said.column("std").to_numpy() > 0).all()


@pytest.mark.parametrize("how", [{"mc": 30}, {"moments": True}])
def test_uncertainty_of_classes(how):
    table = without(columns(), "price")
    model = fitted(table, "verdict")
    said = model.predict_table(table, **how)
    names = ["prediction", "probability_cheap", "probability_dear", "std", "low", "high"]
    assert said.column_names == [*names, "entropy", "mutual_information"]
    low, high = (said.column(name).to_numpy() for name in ("low", "high"))
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (low < high).all()
    again = model.predict_table(table, **how)
    assert said.equals(again)


@pytest.mark.parametrize("target", ["price", "verdict"])
def test_a_file_gives_the_same_model(tmp_path, target):
    table = without(columns(), "verdict" if target == "price" else "price")
    model = fitted(table, target)
    model.save(tmp_path / "model.safetensors")
    again = TableModel.load(tmp_path / "model.safetensors")
    assert again.target == model.target
    assert again.encoding.columns == model.encoding.columns
    assert again.trained == model.trained
    assert set(again.trained["versions"]) == {"fastdrop", "numpy", "pyarrow", "python"}
    for how in ({}, {"mc": 5}, {"moments": True}):
        assert again.predict_table(table, **how).equals(model.predict_table(table, **how))


def test_files_of_other_kinds(tmp_path, model):
    network = Sequential([Input((2,)), Dense(1)], seed=0)
    network.save(tmp_path / "network")
    with pytest.raises(
        ValueError, match="expected a file of kind table, got one of model"
    ) as error:
        TableModel.load(tmp_path / "network")
    assert len(str(error.value)) < 200
    model.save(tmp_path / "table")
    with pytest.raises(ValueError, match="expected a file of kind model, got one of table"):
        load_model(tmp_path / "table")


def test_what_is_not_fitted_predicts_nothing(tmp_path):
    model = TableModel()
    for call in (
        lambda: model.predict({}),
        lambda: model.predict_proba({}),
        lambda: model.predict_table({}),
        lambda: model.save(tmp_path / "model"),
    ):
        with pytest.raises(RuntimeError, match="expected a fitted one"):
            call()


BAD_ARGUMENTS = {
    "hidden": (lambda: TableModel(hidden=(0,)), "hidden: expected a list of whole numbers"),
    "hidden, no list": (lambda: TableModel(hidden=64), "hidden: expected a list of whole numbers"),
    "dropout": (lambda: TableModel(dropout=2), "dropout: expected a probability"),
    "epochs": (lambda: TableModel(epochs=0), "epochs: expected"),
    "task": (lambda: fitted(task="ranking"), "task: expected one of classification, regression"),
    "missing": (lambda: fitted(missing="drop"), "missing: expected one of error, fill"),
    "ignore": (lambda: fitted(ignore="size"), "ignore: expected a list of names"),
    "two roles": (lambda: fitted(weight="price"), "weight: expected another column than that"),
    "two splits": (lambda: fitted(group="town", time="sold"), "group, time: expected one of them"),
    "group": (lambda: fitted(columns() | {"g": ["a"] * N}, group="g"), "group: .* 2 groups, got 1"),
    "time of words": (lambda: fitted(time="town"), "time: expected dates .*, got words in 'town'"),
    "time": (lambda: fitted(columns() | {"t": [1] * N}, time="t"), "time: expected different"),
    "a time missing": (
        lambda: fitted(columns() | {"t": [None, *range(N - 1)]}, time="t"),
        "time: expected a time in every row, got 1 without",
    ),
    "weight of words": (lambda: fitted(weight="town"), "weight: expected numbers, got words"),
    "weights": (
        lambda: fitted(columns() | {"w": -np.ones(N)}, weight="w"),
        "weight: expected numbers of at least 0",
    ),
    "no table": (lambda: fitted([1, 2, 3]), "table: expected a path, a DataFrame"),
    "no file": (lambda: fitted("none.csv"), "none.csv: expected an existing file"),
    "target": (lambda: fitted(target="prise"), "target: .*, got 'prise'; did you mean price?"),
    "ignored": (lambda: fitted(ignore=["Size"]), "ignore: .*, got 'Size'; did you mean size?"),
    "regression of words": (
        lambda: fitted(target="verdict", task="regression"),
        "target: expected numbers for a regression, got words in 'verdict'",
    ),
    "classes of numbers": (
        lambda: fitted(task="classification"),
        "target: expected words or whole numbers as classes",
    ),
    "target of dates": (lambda: fitted(target="sold"), "target: expected numbers or words, got"),
    "both uncertainties": (
        lambda: fitted().predict_table(columns(), mc=2, moments=True),
        "mc, moments: expected one of them",
    ),
    "mc": (lambda: fitted().predict_table(columns(), mc=0), "mc: expected a whole number"),
    "nothing to drop": (
        lambda: (
            TableModel(hidden=(4,), dropout=0, epochs=1)
            .fit(columns(), "price", verbose=0)
            .predict_table(columns(), mc=2)
        ),
        "dropout family",
    ),
    "no probabilities": (lambda: fitted().predict_proba(columns()), "expected a classification"),
    "lists": (lambda: fitted(columns() | {"l": [[1]] * N}), "column 'l': expected numbers, words"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments(case):
    call, message = BAD_ARGUMENTS[case]
    with pytest.raises((TypeError, ValueError, OSError), match=message) as error:
        call()
    assert len(str(error.value)) <= 200
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": [1, 2], "price": [1]}, "expected columns of one kind each, got: Column 1"),
        ({"a": [object()], "price": [1]}, "expected columns of one kind each, got: .*convert"),
        ({"a": [2**70], "price": [1]}, "expected columns of one kind each, got: "),
        ({"a": [[1]] * 40, "price": range(40)}, "column 'a': expected numbers, words or dates"),
        ({}, "table: expected columns, got none"),
    ],
)
def test_tables_in_memory_that_do_not_serve(table, message):
    with pytest.raises(ValueError, match=message) as error:
        TableModel(epochs=1).fit(table, "price", verbose=0)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 200


@pytest.mark.parametrize("name", [0, None, ["price"]])
def test_columns_are_named_by_text(name):
    with pytest.raises(TypeError, match="target: expected the name of a column, got"):
        fitted(target=name)
    if name is not None:
        with pytest.raises(TypeError, match="weight: expected the name of a column, got"):
            fitted(weight=name)


def test_numpys_integers_of_few_bits(tmp_path):
    counts = {"epochs": np.int8(2), "batch_size": np.uint8(200), "seed": np.uint16(3)}
    model = TableModel(hidden=[np.uint8(200)], **counts)
    table = {"size": np.arange(300.0) ** 2, "price": np.arange(300) + 0.5}
    model.fit(table, "price", verbose=0).save(tmp_path / "model")
    found = TableModel.load(tmp_path / "model").predict(table)
    np.testing.assert_array_equal(found, model.predict(table))
