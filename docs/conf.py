"""How Sphinx builds the site: ``make docs``. CONTRIBUTING.md says what each folder is for."""

import os
import re
import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx_gallery.sorting import ExplicitOrder

from fastdrop._version import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import inventories  # noqa: E402

project = "fastdrop"
author = "The fastdrop developers"
copyright = author
release = version = __version__
html_title = f"fastdrop {release}"
extensions = [
    "sphinx_gallery.gen_gallery",  # before adapters, and these before what imports the package
    "adapters",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
]
exclude_patterns = ["figures", "reference/api/generated/.*", "results"]
templates_path = ["_templates"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"[^.]*"),  # arguments and attributes, which docstrings have in backquotes, too
    ("py:.*", r"(equinox|flax|jax|keras|numpy|sklearn|torch)\..*"),  # described by other sites
    ("py:.*", r"fastdrop\.training.*"),  # no part of the API
    ("py:.*", r"fastdrop\.Sequential.*"),  # its page is that of fastdrop.models.Sequential
]
default_role = "autolink"  # `Sequential` in a docstring is a link, `p` is not

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence"]
myst_heading_anchors = 3  # as GitHub names them

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the Parameters sections have the types
autosummary_ignore_module_all = False
numpydoc_show_class_members = False  # the template lists them
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"  # words that are no names, such as "optional"
numpydoc_xref_aliases = inventories.aliases(HERE / "reference" / "api")
intersphinx_mapping = inventories.write(HERE / "_inventories")

sphinx_gallery_conf = {
    "examples_dirs": "../examples/tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": "/plot_",
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_",),  # what a cell has to say it prints
    "download_all_examples": False,
    "show_signature": False,
    "within_subsection_order": ExplicitOrder(
        [
            "plot_dropout_in_ten_minutes.py",
            "plot_table_to_decision.py",
            "plot_how_sure.py",
            "plot_one_mask_for_a_batch.py",
        ]
    ),
}

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = html_copy_source = False


# pages of the repository's root that the site has, too
ROOT_PAGES = {
    "CHANGELOG.md": "reference/changelog",
    "CODE_OF_CONDUCT.md": "code_of_conduct",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
}


def take_from_the_root(app, page, source):
    """Put a page of the root before what its stand-in says; its links lead from there."""
    for name, place in ROOT_PAGES.items():
        if page == place:
            path = HERE.parent / name
            app.env.note_dependency(str(path))
            link = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
            text = link.sub(lambda found: f"]({from_page(found[1], page)}", path.read_text())
            source[0] = f"{text}\n\n{source[0]}"


def from_page(path, page):
    """A path from the root, as a page of the site links to it."""
    target = f"{ROOT_PAGES[path]}.md" if path in ROOT_PAGES else path.removeprefix("docs/")
    return os.path.relpath(target, os.path.dirname(page))


def give_tables_a_heading(app, page, source):
    """Benchmarks write tables without a heading, and no list of contents has them: links do."""
    folder, _, name = page.rpartition("/")
    if folder.startswith("bench/"):
        heading = f"# {name} on {folder.removeprefix('bench/')}\n\n"
        source[0] = heading * (not source[0].startswith("# ")) + source[0]
        source[0] = f"---\norphan: true\n---\n\n{source[0]}"


def setup(app):
    app.add_lexer("rooms", TextLexer)  # the drawings of development.md
    app.connect("source-read", take_from_the_root)
    app.connect("source-read", give_tables_a_heading)
