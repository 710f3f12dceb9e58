"""What a report says: findings, words, pictures, the page; how the command behaves."""

import functools
import itertools
import json
import math
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2", reason="reports need Jinja2")
pytest.importorskip("PIL", reason="reports need Pillow")
import hand_made_reports as hand_made

from fastdrop import Key
from fastdrop.commands.main import main
from fastdrop.commands.report import findings, insides, outcomes
from fastdrop.commands.report.composition import compose
from fastdrop.commands.report.page import render
from fastdrop.commands.report.scales import number, percent, tick_labels, ticks
from fastdrop.commands.report.svg import WIDTH, spread
from fastdrop.layers import Dense, Flatten

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
FIGURES = ("loss", "val_loss", "accuracy", "val_accuracy")
VOID = {"br", "img", "link", "meta"}


@functools.cache
def page_of(case):
    return compose(hand_made.CASES[case]())


@functools.cache
def html_of(case):
    return render(page_of(case)).decode()


class Outline(HTMLParser):
    """Elements, headings, ids, text of a page; refuses tags that do not close one another."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.headings, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title"):
            self.text += data


@pytest.fixture(scope="module", params=hand_made.CASES)
def case(request):
    return request.param


# --- the page


def test_a_page_is_whole_html_with_landmarks_and_headings_in_order(case):
    page = Outline(html_of(case))
    tags = [
        tag for tag, attributes in page.elements if (tag, "id" in attributes) != ("title", True)
    ]
    assert all(tags.count(tag) == 1 for tag in ("header", "nav", "main", "footer", "h1", "title"))
    assert page.headings[0] == 1
    assert all(b <= a + 1 for a, b in zip(page.headings, page.headings[1:]))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in page.elements:
        for name in ("aria-labelledby", "href"):
            if name == "href" and tag != "a":
                continue
            for target in attributes.get(name, "").split():
                assert target.removeprefix("#") in ids


def test_every_picture_has_words_and_numbers(case):
    page = Outline(html_of(case))
    pictures = [a for tag, a in page.elements if tag == "svg"]
    sheets = [a for tag, a in page.elements if tag == "img" and "sheet" in a.get("class", "")]
    figures = [a for tag, a in page.elements if tag == "figure"]
    assert len(figures) == len(pictures) + len(sheets)
    assert len(figures) == sum(tag == "details" for tag, _ in page.elements)
    assert all(a["alt"] for tag, a in page.elements if tag == "img")
    for text in SVG.findall(html_of(case)):
        assert len(ElementTree.fromstring(text).find("title").text) > 3
        assert len(ElementTree.fromstring(text).find("desc").text) > 20
    assert all(rows for rows in (figure.numbers.rows for figure in figures_of(page_of(case))))


def figures_of(page):
    return [block for part in page.sections for block in part.blocks if block.kind == "figure"]


def test_numbers_in_tables_are_as_many_as_their_columns(case):
    for part in page_of(case).sections:
        for block in part.blocks:
            tables = {"figure": lambda b: [b.numbers], "table": lambda b: [b]}
            for table in tables.get(block.kind, lambda b: [])(block):
                assert all(len(row) == len(table.columns) for row in table.rows), table.caption


def test_pictures_stay_in_their_frames(case):
    for text in SVG.findall(html_of(case)):
        picture = ElementTree.fromstring(text)
        width, height = map(float, picture.get("viewBox").split()[2:])
        assert width == WIDTH
        for element in picture.iter():
            places = [
                *((element.get(name), width) for name in ("x", "x1", "x2", "cx")),
                *((element.get(name), height) for name in ("y", "y1", "y2", "cy")),
            ]
            for place, end in places:
                assert place is None or -1 <= float(place) <= end + 1, element.attrib
            for number_ in re.findall(r"[-\d.]+|nan|inf", element.get("d", "")):
                assert math.isfinite(float(number_))


def test_nothing_is_loaded_or_run(case):
    for tag, attributes in Outline(html_of(case)).elements:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base", "use")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "#")[:1] == "#" or attributes[name].startswith("data:")
    assert "@import" not in html_of(case)
    assert "url(" not in html_of(case)


def test_names_that_would_be_code_are_read_as_names():
    page = Outline(html_of("evil names"))
    assert page.text.count("<script>alert(1)</script>\"'&<img") > 20
    assert {a["src"][:10] for tag, a in page.elements if tag == "img"} <= {"data:image"}
    assert "\x00" not in html_of("evil names")


def test_below_two_megabytes(case):
    assert len(html_of(case).encode()) < 2_000_000


def sections_of(case):
    return [part.name for part in page_of(case).sections]


@pytest.mark.parametrize(
    ("case", "there", "not_there"),
    [
        (
            "images",
            ["seeds", "curves", "gap", "rates", "confusion", "calibration", "examples", "inside"],
            ["columns", "estimates"],
        ),
        ("images", ["units", "time"], []),
        ("table", ["columns", "confusion", "calibration"], ["rates", "units", "estimates"]),
        ("regression", ["columns", "estimates", "examples"], ["confusion", "calibration", "units"]),
        ("nothing but results", ["seeds", "curves", "gap", "time"], ["inside", "confusion"]),
    ],
)
def test_what_each_kind_of_run_is_told_of(case, there, not_there):
    assert set(there) <= set(sections_of(case))
    assert not set(not_there) & set(sections_of(case))


@pytest.mark.parametrize(
    ("better", "seeds", "says"),
    [
        (0.5, 5, "Dropout helps: accuracy rises from 8\\d.\\d.% to 9\\d.\\d.%"),
        (2.0, 5, "Dropout harms here: accuracy falls from 8\\d.\\d.% to 7\\d.\\d.%"),
        (1.0, 5, "No clear difference: accuracy is"),
        (0.5, 1, "Accuracy is 8\\d.\\d.% without dropout and 9\\d.\\d.% with, by one seed"),
    ],
)
def test_the_headline_says_what_came_out(better, seeds, says):
    found = hand_made.of_nothing_but_results(better=better, seeds=seeds)
    assert re.fullmatch(f"{says}.*", compose(found).title)


def test_what_is_missing_is_told():
    assert "What needs the data is missing: &lt;gone&gt;." in html_of("nothing but results")


def test_the_best_rate_is_named():
    page = page_of("images")
    said = {part.name: part.says for part in page.sections}
    assert said["rates"].startswith("Of 5 rates, 0.5 gives the best validation loss")
    assert "More is not better: 0.8" in said["rates"]


# --- colours


def colours(text):
    return dict(re.findall(r"--(\w+): (#\w{6});", text))


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def mixed(colour, paper, opacity):
    pairs = [(int(colour[i : i + 2], 16), int(paper[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(opacity * a + (1 - opacity) * b):02x}" for a, b in pairs)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_to_read(scheme):
    css = html_of("table").split("<style>")[1].split("</style>")[0]
    light, dark = css.split("@media screen and (prefers-color-scheme: dark)", 1)
    palette = colours(light) | (colours(dark.split("}", 1)[0]) if scheme == "dark" else {})
    paper = palette["paper"]
    for name in ("ink", "muted", "with", "without"):
        assert contrast(palette[name], paper) >= 4.5, name
    assert contrast(palette["base"], paper) >= 3
    assert contrast(palette["ink"], palette["warn"]) >= 4.5
    for kind in ("with", "without"):  # numbers in the cells of a table
        assert contrast(palette["ink"], mixed(palette[kind], paper, 0.45)) >= 4.5
    # told apart without colours, too
    assert contrast(palette["with"], palette["without"]) >= 1.0
    assert palette["with"] != palette["without"]


# --- findings


def test_the_gap_is_how_much_worse_the_validation_part_is():
    found = hand_made.results()
    for measure in findings.measures("accuracy"):
        curves = findings.learning(found.runs, 0.5, measure)
        gap = findings.gap(curves).curve("without").mean
        runs = [run for run in found.runs if run.dropout == 0]
        apart = [
            run.figures[f"val_{measure.name}"][-1] - run.figures[measure.name][-1] for run in runs
        ]
        assert gap[-1] == pytest.approx(np.mean(apart) * (-1 if measure.higher else 1))


def test_seeds_are_paired():
    found = hand_made.results(seeds=3)
    runs = [run for run in found.runs if (run.dropout, run.seed) != (0.5, 1)]
    assert findings.compare(runs, 0.5, findings.measures("accuracy")[1]).seeds == [0, 2]


def test_confusion_counts_true_by_said():
    p = np.eye(3)[[0, 1, 1, 2]]
    answers = outcomes.classified(p, np.array([0, 0, 1, 2]))
    table = outcomes.confusion(answers)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert outcomes.mistakes(table) == [(0, 1, 1)]


def test_one_output_is_the_probability_of_class_1():
    answers = outcomes.classified(np.array([[0.9], [0.2]]), np.array([1, 1]))
    assert answers.predicted.tolist() == [1, 0]
    np.testing.assert_allclose(answers.loss, -np.log([0.9, 0.2]))


def test_the_wrongest_are_wrong_and_the_least_certain_uncertain():
    p = np.array([[0.9, 0.1], [0.99, 0.01], [0.5, 0.5], [0.2, 0.8]])
    answers = outcomes.classified(p, np.array([1, 1, 0, 1]))
    assert [example.sample for example in outcomes.wrongest(answers, 9)] == [1, 0]
    assert outcomes.least_certain(answers, 1)[0].sample == 2
    off = outcomes.estimated(np.array([[1.0], [5.0]]), np.array([1.5, 2.0]))
    assert [example.loss for example in outcomes.wrongest(off, 9)] == [3, 0.5]


def test_a_temperature_mends_what_is_too_sure():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.random((4000, 1)) > p.cumsum(axis=1)).sum(axis=1)
    sure = p**3 / (p**3).sum(axis=1, keepdims=True)
    found = outcomes.calibration(outcomes.classified(sure, y), seed=0)
    assert found.temperature == pytest.approx(3, rel=0.15)
    assert found.after.error < 0.3 * found.before.error
    assert found.samples == found.before.counts.sum() == 2000


@pytest.mark.parametrize(("y", "told"), [([0, 1, 2], True), ([1, 2, 0], False)])
def test_no_temperature_where_there_is_no_best_one(y, told):
    p = 0.97 * np.eye(3) + 0.01
    found = outcomes.calibration(outcomes.classified(np.repeat(p, 4, 0), np.repeat(y, 4)), 0)
    assert found.after is None
    assert math.isnan(found.temperature)
    assert found.before.error == pytest.approx(0.02 if told else 0.98)


def test_only_columns_that_are_used_count():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 4))
    columns = [outcomes.Column("pair", [0, 1]), outcomes.Column("third", [2])]
    columns += [outcomes.Column("idle", [3])]

    def answer(given):
        return outcomes.estimated(
            given[:, 0] + given[:, 1] + 0.1 * given[:, 2], x[:, :3] @ [1, 1, 0.1]
        )

    found = outcomes.importance(answer, x, columns, seed=0)
    assert [value.name for value in found] == ["pair", "third", "idle"]
    assert found[0].mean > 5 * found[1].mean > 0
    assert found[2].mean == 0


def test_histograms_share_their_bins_and_leave_zeros_out():
    arrays = {"without": [np.array([0.0, 0, 1, 2])], "with": [np.array([0.0, 3, 3, 3])]}
    (found,) = insides.fingerprints(["layer 1"], arrays)
    a, b = found.histograms["without"], found.histograms["with"]
    assert a.edges == b.edges
    assert (a.zeros, b.zeros) == (0.5, 0.25)
    assert sum(b.shares) == pytest.approx(0.75)


@pytest.mark.parametrize("fill", [0.0, 1.0, -2.0])
def test_histograms_of_equal_values(fill):
    arrays = {"without": [np.full(5, fill)], "with": [np.full(5, fill)]}
    found = insides.fingerprints(["layer 1"], arrays)
    assert len(found) == (fill != 0)


def test_units_that_repeat_each_other():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(300, 1))
    assert insides.likeness(np.hstack([one, -one, np.ones((300, 1))])) == pytest.approx(1)
    assert insides.likeness(rng.normal(size=(3000, 5))) < 0.1
    assert math.isnan(insides.likeness(one))


def test_unit_images_are_those_of_large_weights():
    layers = [Flatten(), Dense(3)]
    layers[1].build((6,), Key(0))
    layers[1].params["weight"][:] = np.arange(3)[:, np.newaxis]
    images = insides.unit_images(layers, (2, 3), 2)
    assert images.shape == (2, 2, 3)
    assert (images[0] == 2).all()
    assert insides.unit_images(layers, (4, 4)) is None


# --- numbers and places


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.123456, "0.123"),
        (12345.6, "12\u202f346"),
        (-1.5, "\u22121.50"),
        (1e-9, "1.00e\u221209"),
        (math.nan, "none"),
        (math.inf, "infinite"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 0.5, 1], ["0.0", "0.5", "1.0"]),
        ([0.25, 0.5], ["0.25", "0.50"]),
        ([0, 50_000, 100_000], ["0", "50k", "100k"]),
        ([1_000_000, 1_500_000], ["1000k", "1500k"]),
        ([-20_000_000, 0], ["\u221220M", "0"]),
        ([5], ["5"]),
        ([], []),
    ],
)
def test_labels_of_axes(values, texts):
    assert tick_labels(values) == texts


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_ticks_are_few_round_and_inside(low, span, most):
    high = low + span
    if not high > low:
        return
    found = ticks(low, high, most)
    slack = 1e-6 * span
    assert len(found) <= most + 1
    assert all(low - slack <= value <= high + slack for value in found)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_labels_are_apart(places):
    found = sorted(spread(places, 14, 200))
    assert all(b - a >= 14 - 1e-6 for a, b in itertools.pairwise(found))
    assert percent(0.5) == "50.0\u202f%"


# --- the command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    small = ["--hidden", "16,8", "--epochs", "3", "--seeds", "2", "--quiet"]
    assert main(["train", "--out", str(folder), *small]) == 0
    return folder


def test_report_of_a_run(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    text = out.read_text()
    assert "embedded digits: 1400 training and 397 validation samples" in text
    assert "fastdrop train --out" in text
    assert all(f'id="{name}"' in text for name in ("units", "calibration", "examples"))
    before = out.read_bytes()
    assert main(["report", str(run), "--out", str(out)]) == 0  # ours may be replaced
    assert out.read_bytes() == before


def test_report_lies_beside_the_run(run):
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").is_file()


def test_train_writes_a_report(tmp_path):
    out = tmp_path / "page.html"
    small = ["--hidden", "8", "--epochs", "1", "--quiet", "--out", str(tmp_path / "run")]
    assert main(["train", *small, "--report", str(out)]) == 0
    assert "Accuracy is" in out.read_text()


def test_another_file_stays_without_force(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("<html>somebody's</html>")
    assert main(["report", str(run), "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "<html>somebody's</html>"
    assert main(["report", str(run), "--out", str(out), "--force"]) == 0
    assert "fastdrop" in out.read_text()


def test_train_refuses_before_it_trains(tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("somebody's")
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), "--report", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert not (run / "training.json").exists()


@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("nowhere", "page.html", "expected a folder that fastdrop train wrote"),
        (".", "page.html", "expected a folder that fastdrop train wrote"),
        ("run", "nowhere/page.html", "expected an existing folder"),
        ("run", ".", "got a folder"),
        ("run", "/dev/full", "No space left"),
        ("broken", "page.html", "expected"),
    ],
)
def test_refused(run, tmp_path, capsys, folder, out, message):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "training.json").write_text('{"version": "1"}')
    folder = run if folder == "run" else tmp_path / folder
    assert main(["report", str(folder), "--out", str(tmp_path / out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert len(error) <= 201
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("runs", []),
        ("runs", "none"),
        ("settings", {}),
        ("data", {}),
        ("figures", {}),
        *(("figures", dict.fromkeys(FIGURES, each)) for each in ([], [math.nan], ["a"], None)),
        ("dropout", 0.5),
        ("dropout", 0.0),
    ],
)
def test_changed_results_are_refused_in_a_line(run, tmp_path, capsys, name, value):
    facts = json.loads((run / "training.json").read_bytes())
    if name in facts:
        facts[name] = value
    else:
        for each in facts["runs"]:
            each[name] = value
    (tmp_path / "training.json").write_text(json.dumps(facts))
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "training.json" in error
    assert not (tmp_path / "report.html").exists()


def test_without_the_extra(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "fastdrop.commands.report.page", raising=False)
    monkeypatch.delattr("fastdrop.commands.report.page", raising=False)
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 2
    assert "pip install 'fastdrop-nn[report]'" in capsys.readouterr().err


def test_without_models_the_rest_is_told(run, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "training.json").write_bytes((run / "training.json").read_bytes())
    assert main(["report", str(folder)]) == 0
    assert "model-with-dropout.safetensors" in capsys.readouterr().err
    assert "model-with-dropout.safetensors" in (folder / "report.html").read_text()


def test_other_data_are_not_taken_for_the_runs(tmp_path, capsys):
    data = tmp_path / "data.npz"
    rng = np.random.default_rng(0)

    def write():
        np.savez(data, x=rng.normal(size=(60, 4)), y=np.arange(60) % 3)

    write()
    folder = tmp_path / "run"
    small = ["--hidden", "8", "--epochs", "1", "--quiet", "--data", str(data)]
    assert main(["train", *small, "--out", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    assert not capsys.readouterr().err
    assert "Which classes are confused?" in (folder / "report.html").read_text()
    write()
    assert main(["report", str(folder)]) == 0
    assert "checksum" in capsys.readouterr().err
    assert "Which classes are confused?" not in (folder / "report.html").read_text()


CHANGED = {
    "path": ("data", {"path": 3}),
    "folder": ("data", {"folder": 3}),
    "roles": ("data", {"roles": 3}),
    "classes": ("data", {"classes": 3}),
    "command": ("command", 3),
    "environment": ("environment", 3),
    "settings": ("settings", []),
    "runs": ("runs", 3),
}


@pytest.mark.parametrize("case", CHANGED)
def test_results_of_another_form_are_refused_in_a_line(run, tmp_path, capsys, case):
    name, value = CHANGED[case]
    found = json.loads((run / "training.json").read_text())
    found[name] = found[name] | value if isinstance(value, dict) else value
    (tmp_path / "training.json").write_text(json.dumps(found))
    assert main(["report", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"training.json: expected results of fastdrop train, got others in {case}" in line
    assert [path.name for path in tmp_path.iterdir()] == ["training.json"]


def test_what_is_refused_leaves_no_folder(tmp_path, capsys):
    for report in (tmp_path, tmp_path / "none" / "page.html", "-"):
        assert main(["train", "--out", str(tmp_path / "run"), "--report", str(report)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert not list(tmp_path.iterdir())


# --- tables


def test_cells_are_what_stood_in_the_table():
    pytest.importorskip("pyarrow", reason="tables need pyarrow")
    from fastdrop.tables.preparation import Roles, prepare

    rng = np.random.default_rng(0)
    rows = 200
    days = np.datetime64("2024-01-01") + rng.integers(0, 300, rows)
    table = {
        "size": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(0, 90, rows) / 2),
        "town": rng.choice(["Ulm", "Jena", "Bonn"], rows),
        "new": rng.random(rows) < 0.5,
        "sold": days,
        "price": rng.normal(size=rows),
    }
    prepared = prepare(table, Roles("price"))
    encoding = prepared.encoding
    names = [column.name for column in encoding.columns]
    assert sorted(place for places in encoding.places() for place in places) == [
        *range(encoding.width)
    ]

    def told(name, value):
        if isinstance(value, float | np.floating):
            return "missing" if np.isnan(value) else f"{value:.6g}"
        return str(value).lower() if name == "new" else str(value)

    stood = {tuple(told(name, table[name][i]) for name in names) for i in range(rows)}
    for row in prepared.x_val[:]:
        assert tuple(encoding.cells(row)) in stood


def test_report_of_a_table(tmp_path):
    pytest.importorskip("pyarrow", reason="tables need pyarrow")
    rng = np.random.default_rng(0)
    size = rng.integers(20, 200, 120)
    lines = ["<b>size</b>,town,price", *(f"{s},{'ab'[s % 2]},{1000 * s}" for s in size)]
    data = tmp_path / "houses.csv"
    data.write_text("\n".join(lines))
    run = tmp_path / "run"
    small = ["--target", "price", "--hidden", "8", "--epochs", "2", "--quiet", "--out", str(run)]
    assert main(["train", str(data), *small]) == 0
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text()
    assert "How far off are predictions?" in text
    assert "Which columns count?" in text
    assert "&lt;b&gt;size&lt;/b&gt;" in text
    assert "<b>size" not in text


def cells_of(html, caption):
    """The table below a caption: its heads, and its rows."""
    (table,) = [t for t in re.findall("<table>.*?</table>", html, re.DOTALL) if caption in t]
    rows = [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr>")]
    return [row for row in rows if row]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_are_those_of_the_table(tmp_path, suffix):
    """Whatever rows are left out before, and which ones are set apart to validate on."""
    pytest.importorskip("pyarrow", reason="tables need pyarrow")
    from table_files import written

    rng = np.random.default_rng(0)
    size = rng.integers(20, 2000, 150)
    price = (1000.0 * size + rng.normal(size=150)).round(1)
    price[rng.random(150) < 0.3] = np.nan
    data = written(tmp_path / f"houses.{suffix}", {"size": size, "price": price})
    run = tmp_path / "run"
    small = ["--target", "price", "--hidden", "8", "--epochs", "1", "--quiet", "--out", str(run)]
    assert main(["train", str(data), *small]) == 0
    assert main(["report", str(run)]) == 0
    html = (run / "report.html").read_text()
    assert "row 1 is the first below the table" in html
    heads, *rows = cells_of(html, "Wrongest")
    assert rows
    for row in rows:
        told = dict(zip(heads, row, strict=True))
        assert int(told["size"]) == size[int(told["row"]) - 1]
        true = float(told["true"].replace("\u202f", ""))
        assert true == pytest.approx(price[int(told["row"]) - 1], rel=1e-3)


def test_samples_are_those_of_the_arrays(tmp_path, run):
    assert main(["report", str(run)]) == 0
    html = (run / "report.html").read_text()
    samples = [int(number) for number in re.findall(r'alt="sample (\d+): ', html)]
    assert samples
    assert all(1400 <= number < 1797 for number in samples)


def test_data_are_found_from_another_folder(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pyarrow", reason="tables need pyarrow")
    places = [tmp_path / name for name in ("there", "here")]
    for place in places:
        place.mkdir()
    lines = ["size,price", *(f"{s % 37},{1000 * s}.5" for s in range(60))]
    (places[0] / "t.csv").write_text("\n".join(lines))
    small = ["--target", "price", "--hidden", "4", "--epochs", "1", "--quiet"]
    monkeypatch.chdir(places[0])
    assert main(["train", "t.csv", *small, "--out", str(tmp_path / "run")]) == 0
    monkeypatch.chdir(places[1])
    page = tmp_path / "run" / "report.html"

    def is_whole():
        assert main(["report", str(tmp_path / "run")]) == 0
        return "How far off are predictions?" in page.read_text()

    assert is_whole()
    (places[0] / "t.csv").rename(places[1] / "t.csv")
    assert is_whole()
    (places[1] / "t.csv").unlink()
    capsys.readouterr()
    assert not is_whole()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the data are not there any longer: {places[0] / 't.csv'} or t.csv" in line
    assert "How long does it take?" in page.read_text()
