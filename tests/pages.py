"""The pages that people read, as tests see them: code, commands, links and headings."""

import re
import shlex
from pathlib import Path
from unittest import SkipTest

import extras
from places import ROOT
from sybil.document import Document
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

DOCS = ROOT / "docs"
MADE = (DOCS / "tutorials", DOCS / "reference" / "api" / "generated")  # by `make docs`
README = ROOT / "README.md"
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    if not any(path.is_relative_to(folder) for folder in MADE)
)
FENCE = re.compile(r"^( *)(```+|:::+)([^\n]*)\n(.*?)^ *\2", flags=re.MULTILINE | re.DOTALL)
LAUNCHERS, PROGRAMS = ("mpiexec", "srun"), ("fastdrop", "make", "pip", "python")
HIDDEN = "<!-- invisible-code-block: python"
COMMENT = re.compile(r"<!--.*?-->", flags=re.DOTALL)


def name_of(page):
    return str(page.relative_to(ROOT))


def run(page, left_out=frozenset()):
    """Run a page's Python from top to bottom; return its names, and what was skipped and why."""
    document = Document.parse(str(page), PythonCodeBlockParser(), SkipParser())
    document.namespace["__name__"] = "__main__"
    skipped = []
    for example in document:
        code = example.parsed if isinstance(example.parsed, str) else ""  # skips are no code
        modules = extras.imported(code) if ">>>" not in code else set()
        lacking = {*extras.missing(modules), *(extras.libraries(modules) & left_out)}
        if lacking:
            skipped.append(f"line {example.line} needs {', '.join(sorted(lacking))}")
            continue
        try:
            example.evaluate()
        except SkipTest as reason:
            skipped.append(f"line {example.line}: {reason}")
        except NameError as error:  # of what a skipped example would have defined
            if not skipped:
                raise
            skipped.append(f"line {example.line}: {error}")
    return document.namespace, skipped


def blocks(page):
    """The fenced blocks of a page: what follows the fence, and the text."""
    return [(found[3].strip(), found[4]) for found in FENCE.finditer(page.read_text())]


def has_python(page):
    """Whether a page has Python, where readers see it or not."""
    return HIDDEN in page.read_text() or any(kind[:6] == "python" for kind, _ in blocks(page))


def scripts(page):
    """The blocks of a shell that are to be run: below a comment that says so."""
    below = re.compile(r"<!-- run -->\n+```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return below.findall(page.read_text())


def prose(page):
    """A page without its blocks and comments."""
    return COMMENT.sub("", FENCE.sub("", page.read_text()))


def commands(page):
    """Our commands on a page, as words: in blocks of a shell, and between backquotes."""
    lines = []
    for kind, text in blocks(page):
        joined = text.replace("\\\n", " ").splitlines()
        if kind in ("sh", "bash"):
            lines += joined
        elif kind in ("console", ""):
            lines += [line.removeprefix("$ ") for line in joined if line.startswith("$ ")]
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose(page))]
    found = [ours(words_of(part)) for line in lines for part in re.split(r"&&|\|\||[|;]", line)]
    return [words for words in found if words]


def ours(words):
    """What of a command is ours, without what starts it; nothing where it is another's."""
    while words and "=" in words[0]:  # NAME=value
        words = words[1:]
    if words and words[0] in LAUNCHERS:
        places = [place for place, word in enumerate(words) if Path(word).name in PROGRAMS]
        words = words[places[0] :] if places else []
    return [Path(words[0]).name, *words[1:]] if words and Path(words[0]).name in PROGRAMS else []


def words_of(line):
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # an apostrophe: no command
        return []


def links(page):
    """The targets of a page's links and pictures."""
    text = re.sub(r"`[^`]*`", "", prose(page))
    found = re.findall(r"\]\(<?([^)\s>]+)", text)
    return found + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)


def anchors(page):
    """What links can name in a page: its headings, as GitHub and MyST write them."""
    found, text = set(), FENCE.sub("", page.read_text())
    for heading in re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found | set(re.findall(r"^\((.+)\)=$", text, flags=re.MULTILINE))
