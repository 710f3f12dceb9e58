"""README and docs/: their Python runs, their commands exist, their links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pages
import pytest
from places import ROOT

import fastdrop
from fastdrop import Key
from fastdrop.commands.main import _parser
from fastdrop.layers import Batch, Dense

pytestmark = pytest.mark.skipif(not pages.README.exists(), reason="not in a checkout")
every_page = pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
WRITTEN = r"https?://([a-z0-9-]+\.)+[a-z]+(/[\w./#%~-]*)?|mailto:[\w.-]+@[\w.-]+"  # another site's
IN_PLACE = Path(fastdrop.__file__).is_relative_to(ROOT)  # not an installed wheel
OTHER_TEST = {"docs/how-to/sklearn.md": "adapters/sklearn/test_sklearn_page.py"}


@pytest.fixture
def own_process(tmp_path, monkeypatch):
    """What a page may change for the process is as before when the page is done."""
    monkeypatch.chdir(tmp_path)
    threads = fastdrop.get_num_threads()
    yield
    fastdrop.set_num_threads(threads)
    if "fastdrop.torch" in sys.modules:
        sys.modules["fastdrop.torch"].disable()


def pages_with(has):
    return pytest.mark.parametrize("page", [*filter(has, pages.PAGES)], ids=pages.name_of)


@pages_with(pages.has_python)
def test_python(page, own_process, capsys):
    if other := OTHER_TEST.get(pages.name_of(page)):
        pytest.skip(f"by {other}")
    _, skipped = pages.run(page)
    if skipped:
        pytest.skip("; ".join(skipped))


def test_a_layer_of_ones_own(own_process):
    names, _ = pages.run(pages.DOCS / "how-to" / "own_layer.md")
    model, flip = names["model"], names["Flip"](0.5)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    model.save("model")
    loaded = fastdrop.load_model("model")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    whole, backward = flip.forward(x, Batch(key=Key(1)))
    part, _ = flip.forward(x[30:], Batch(key=Key(1), row=30, rows=40))
    assert 0.4 < (whole == x).mean() < 0.6
    np.testing.assert_array_equal(part, whole[30:])
    np.testing.assert_array_equal(backward(x), whole)  # linear in x
    model = fastdrop.Sequential([names["Scale"](), Dense(1)], seed=1)  # trained as the first layer
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    assert (model.get_weights()[0] != 1).all()
    y, backward = names["Square"]().forward(x, Batch())
    np.testing.assert_array_equal(backward(np.ones_like(y)), 2 * x)


def parses(words):
    """Whether the command line takes words, or would with what the text around them has."""
    more = ["1"] if words[1:] else ["--help"]
    return accepts(words) or accepts([*words, *more])


def accepts(words):
    try:
        _parser().parse_args(words)
    except SystemExit as ended:  # of --help, or of what cannot be
        return not ended.code
    return True


def check(command):
    """Raise an error when a command of ours is not as a page has it."""
    program, *words = command
    words = words[: words.index(">")] if ">" in words else words
    words = [re.sub(r"\$\{?\w+\}?|^[A-Z]+$", "1", word) for word in words if word != "..."]
    if program == "fastdrop" and words[:1] not in ([], ["1"]):  # fastdrop COMMAND
        assert parses(words), command
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        given = {word for word in words if re.fullmatch(r"[a-z-]+", word)}
        assert given <= {*targets, "install"}, command  # Python's own has install
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for named in re.findall(r"(?:fastdrop-nn|\.)\[([\w,-]+)\]", " ".join(words)):
            assert {*named.split(",")} <= {*extras["optional-dependencies"]}, command
    elif program == "python" and words:
        if words[0] == "-m" and words[1].startswith("fastdrop"):
            assert find_spec(words[1].partition(".")[0]), command
            assert (ROOT / words[1].replace(".", "/")).exists(), command
        script = next((word for word in words if word.endswith(".py") and "/" in word), None)
        if script and script.split("/")[0] in ("benchmarks", "examples", "tools", "docs"):
            assert (ROOT / script).exists(), command
            beside = "".join(path.read_text() for path in (ROOT / script).parent.glob("*.py"))
            for word in words[words.index(script) :]:
                option = word.partition("=")[0]
                assert not option.startswith("--") or f'"{option}"' in beside, command


@every_page
def test_commands(page, capsys):
    for command in pages.commands(page):
        check(command)


@pytest.mark.parametrize(
    "line",
    [
        "fastdrop trian",
        "fastdrop train --epoch-count 3",
        "mpiexec -n 4 fastdrop train --epochs many",
        "make dome",
        "pip install 'fastdrop-nn[tourch]'",
        "python examples/gallerie.py",
        "python examples/srivastava_mnist.py --no-such-option",
        "python -m fastdrop.torhc script.py",
    ],
)
def test_a_wrong_command_is_found(line, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"```sh\n{line}\n```\n")
    (command,) = pages.commands(page)
    with pytest.raises(AssertionError):
        check(command)


@pages_with(pages.scripts)
def test_shell(page, tmp_path):
    """Blocks below `<!-- run -->`, one after the other, in a folder of their own."""
    lines = [
        "set -eu",
        f'fastdrop() {{ "{sys.executable}" -m fastdrop "$@"; }}',
        f'python() {{ "{sys.executable}" "$@"; }}',
        *pages.scripts(page),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} if IN_PLACE else None
    ran = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@every_page
def test_links_lead_somewhere(page):
    for link in pages.links(page):
        if re.match(r"(https?|mailto):", link):
            assert re.fullmatch(WRITTEN, link), link
            continue  # `make linkcheck` asks these
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.is_relative_to(pages.MADE[0]):  # of a script
            scripts = [path.stem for path in (ROOT / "examples" / "tutorials").glob("*.py")]
            assert target.stem in ("index", *scripts), link
            continue
        assert target.exists(), link
        assert not anchor or anchor in pages.anchors(target), link


@pytest.mark.parametrize(
    "link", ["nowhere.md", "page.md#nothing", "#nothing", "page.md#a-b", "https://optuna,org"]
)
def test_a_dead_link_is_found(link, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# A heading\n\n```sh\n# a b\n```\n\n[see]({link})\n")
    with pytest.raises(AssertionError):
        test_links_lead_somewhere(page)


@pytest.mark.parametrize("folder", ["", "benchmarks", "examples", "fastdrop", "tests", "tools"])
def test_pages_that_are_named_are_there(folder):
    files = (ROOT / folder).rglob("*") if folder else [ROOT / "Makefile", *ROOT.glob("*.md")]
    for path in files:
        if path.with_suffix(".pyx").exists() and path.suffix == ".c":
            continue  # made of a .pyx file, perhaps of an earlier one
        if path.is_file() and path.suffix in ("", ".py", ".pyx", ".pxd", ".c", ".h", ".md"):
            named = re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text())
            assert [name for name in named if not (ROOT / name).exists()] == [], path


def test_papers_are_named_by_numbers_that_there_can_be():
    for path in [
        *pages.PAGES,
        *(ROOT / "fastdrop").rglob("*.py"),
        *(ROOT / "examples").rglob("*.py"),
    ]:
        for number in re.findall(r"arXiv(?:\.org/abs/|[: ]+)(\d[\d.]*\d)", path.read_text()):
            assert re.fullmatch(r"\d\d(0[1-9]|1[0-2])\.\d{4,5}", number), (path, number)


def test_the_citation_is_of_this_version():
    assert f"\nversion: {fastdrop.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_tables_of_machines_are_what_their_folders_say(tmp_path, monkeypatch):
    import readme_table

    texts = {name: (ROOT / name).read_text() for name in readme_table.PAGES}
    for name in texts:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / readme_table.FOLDER, tmp_path / readme_table.FOLDER, dirs_exist_ok=True)
    monkeypatch.setattr(readme_table, "ROOT", tmp_path)
    readme_table.main()
    assert {name: (tmp_path / name).read_text() for name in texts} == texts
    machines = texts["docs/bench/README.md"]
    for folder in (ROOT / readme_table.FOLDER).iterdir():
        assert not folder.is_dir() or f"| {folder.name} |" in machines
        assert not (folder / "bench.json").exists() or f"[{folder.name}]" in machines


FIGURE = re.compile(  # of a measurement, or of what the code sets
    r"(?<![\w.])(\d+(?:\.\d+)?(?:(?: to | and |, )\d+(?:\.\d+)?)*) "
    r"(?:ns|us|ms|seconds?|minutes|times as|times|copies|%)(?!\w)"
)
PUBLISHED = {"docs/reference/results.md": {"1.08"}}  # by others


def uncompared(page):
    """The figures in a page's sentences that no hidden code of the page has, to compare with."""
    text = re.sub(r"`[^`]*`|^ *\|.*$", "", pages.prose(page), flags=re.MULTILINE)
    said = {number for found in FIGURE.findall(text) for number in re.findall(r"[\d.]*\d", found)}
    code = " ".join(re.findall(r"<!-- invisible-code-block.*?-->", page.read_text(), re.DOTALL))
    return said - {*re.findall(r"[\d.]*\d", code)}


@pytest.mark.parametrize(
    "page",
    # what lies in docs/bench is made by scripts; a changelog is of its day
    [p for p in pages.PAGES if p.name != "CHANGELOG.md" and "bench" not in p.parts],
    ids=pages.name_of,
)
def test_figures_in_sentences_are_compared(page):
    assert uncompared(page) <= PUBLISHED.get(pages.name_of(page), set())


@pytest.mark.parametrize(
    "sentence", ["It takes 3.1 ms.", "It is 2 to 4 times as fast.", "5 % less."]
)
def test_a_figure_from_nowhere_is_found(sentence, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(sentence)
    assert uncompared(page)
    page.write_text(f"{sentence}\n<!-- invisible-code-block: python\n(3.1, 2, 4, 5)\n-->\n")
    assert not uncompared(page)
