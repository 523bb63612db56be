"""The book builds from the committed pages without a warning or the network; pages are made from notebooks safely."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from book import build, processor
from book.build import BOOK, NOTEBOOKS, ROOT, NotebookError, publish, refresh
from book.normalise import normalise, stderr_of, take_parameters

SOURCES = sorted(NOTEBOOKS.glob("*.ipynb"))
PAGES = sorted((BOOK / "results").glob("*.ipynb"))


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """The committed pages, built as a reader would, into a folder of their own."""
    folder = tmp_path_factory.mktemp("book")
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [tool, "build", "book", "--path-output", folder, "-W", "-n", "--keep-going"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "_build" / "html"


def test_every_page_is_built(html):
    pages = {p.relative_to(BOOK).with_suffix(".html") for p in (*BOOK.glob("*.md"), *(BOOK / "results").glob("*.*"))}
    assert Path("index.html") in pages
    assert pages <= {p.relative_to(html) for p in html.rglob("*.html")}


def test_pages_need_no_network(html):
    for page in html.rglob("*.html"):
        text = page.read_text()
        soup = BeautifulSoup(text, "html.parser")
        assets = [tag.get("src") for tag in soup.find_all(["script", "img", "iframe", "source"])]
        assets += [tag.get("href") for tag in soup.find_all("link")]
        assert not [a for a in assets if a and re.match(r"(https?:)?//", a)], page
        for script in soup.find_all("script"):
            assert "http" not in (script.string or ""), page
    styles = [p for p in html.rglob("*.css") if re.search(r"url\([\"']?(https?:)?//|@import [^;]*//", p.read_text())]
    assert not styles


def test_formulas_are_set_by_the_script_in_the_repository(html):
    soup = BeautifulSoup((html / "definitions.html").read_text(), "html.parser")
    (script,) = [tag["src"] for tag in soup.find_all("script") if "mathjax/" in (tag.get("src") or "").lower()]
    shipped = html / script.partition("?")[0]
    assert shipped.read_bytes() == (BOOK / "_offline" / "mathjax" / "tex-svg.js").read_bytes()
    assert soup.find(class_="math")
    assert "mathjax/" not in (html / "references.html").read_text()


def test_internal_links_lead_somewhere(html):
    for page in html.rglob("*.html"):
        for tag in BeautifulSoup(page.read_text(), "html.parser").find_all("a", href=True):
            target = tag["href"].partition("#")[0].partition("?")[0]
            if target and not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_notebooks_say_their_profile_first_and_store_what_nbval_compares(source):
    code = [c for c in nbformat.read(source, 4).cells if c.cell_type == "code"]
    assert code[0].metadata.tags == ["parameters"]
    assert re.search(r'^profile = "smoke"', code[0].source, re.MULTILINE)
    assert all(c.execution_count for c in code if c.source.strip()), "nbval compares no cell without a count"
    assert stderr_of(nbformat.read(source, 4)) == ""
    assert (BOOK / "results" / source.name).is_file(), "no page of the book shows it: make publish"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_committed_pages_are_normal_and_whole(page):
    assert (NOTEBOOKS / page.name).is_file(), "a page without its notebook"
    text = page.read_text()
    assert 'profile = \\"full\\"' in text
    assert not re.search(r"/(home|root|tmp|Users)/", text), "a path of the machine that ran it"
    notebook = nbformat.read(page, 4)
    assert not [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    assert nbformat.writes(normalise(nbformat.reads(text, 4))) == nbformat.writes(notebook)


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook with these code cells after the one with parameters."""

    def write(*cells: str, name: str = "made.ipynb") -> Path:
        parameters = new_code_cell('profile = "smoke"  # or full', metadata={"tags": ["parameters"]})
        path = tmp_path / name
        nbformat.write(new_notebook(cells=[new_markdown_cell("# Made"), parameters, *map(new_code_cell, cells)]), path)
        return path

    return write


def test_a_page_holds_what_ran_at_the_profile_and_nothing_of_the_machine(notebook, tmp_path):
    source = notebook("import sys\nprint('working', file=sys.stderr)", "print(profile, object())\n1 + 1")
    pages = [tmp_path / name for name in ("a.ipynb", "b.ipynb")]
    before = source.read_bytes()
    for page in pages:
        publish(source, page, "full")
    assert source.read_bytes() == before
    assert pages[0].read_bytes() == pages[1].read_bytes()
    made = nbformat.read(pages[0], 4)
    assert [c.source for c in made.cells][:2] == ["# Made", 'profile = "full"  # or full']
    assert len(made.cells) == 4
    assert [o.get("text") or o.data["text/plain"] for o in made.cells[3].outputs] == [
        "full <object object at 0x0>\n",
        "2",
    ]
    assert [c.execution_count for c in made.cells[1:]] == [1, 2, 3]
    assert made.cells[2].outputs == []
    assert "papermill" not in pages[0].read_text()


def test_a_failing_notebook_leaves_the_page_and_is_named(notebook, tmp_path, capsys):
    page = tmp_path / "page.ipynb"
    page.write_text("good")
    bad = notebook("x = 1", "y = 2\nraise ValueError('no such market: s9')")
    with pytest.raises(NotebookError, match="ValueError: no such market: s9 .in the cell that starts with 'y = 2'"):
        publish(bad, page, "smoke")
    assert page.read_text() == "good"
    assert build._run_all([bad], lambda n: publish(n, page, "smoke")) == 1
    assert "made.ipynb: ValueError" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_refresh_stores_outputs_in_place_and_refuses_noise(notebook):
    source = notebook("print(profile)")
    refresh(source)
    once = source.read_bytes()
    refresh(source)
    assert source.read_bytes() == once
    assert nbformat.read(source, 4).cells[2].outputs[0].text == "smoke\n"
    noisy = notebook("import warnings\nwarnings.warn('careful')", name="noisy.ipynb")
    before = noisy.read_bytes()
    with pytest.raises(NotebookError, match="standard error"):
        refresh(noisy)
    assert noisy.read_bytes() == before


def test_stored_outputs_are_compared_on_their_processor_only(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(processor, "STORED", tmp_path / "processor.txt")
    assert processor.nbval_option() == "--nbval-lax", "nothing is known of the stored outputs"
    processor.STORED.write_text("AVX9 Somebody\n")
    assert processor.nbval_option() == "--nbval-lax"
    ran = []
    monkeypatch.setattr(build, "refresh", ran.append)
    with pytest.raises(SystemExit, match="made on AVX9 Somebody, this is .*: refresh all"):
        build.main(["--refresh", "--only", "00"])
    assert not ran and build.main(["--refresh"]) == 0 and len(ran) == len(list(NOTEBOOKS.glob("*.ipynb")))
    assert processor.STORED.read_text().strip() == processor.processor() and processor.nbval_option() == "--nbval"
    assert build.main(["--refresh", "--only", "00"]) == 0


def test_a_failed_refresh_changes_no_processor(monkeypatch, tmp_path):
    def fail(notebook):
        raise NotebookError("no")

    monkeypatch.setattr(processor, "STORED", tmp_path / "processor.txt")
    monkeypatch.setattr(build, "refresh", fail)
    assert build.main(["--refresh"]) == 1 and not processor.STORED.exists()


@pytest.mark.parametrize("folder", [NOTEBOOKS, BOOK / "results"])
def test_every_figure_says_in_words_what_it_shows(folder):
    pages = sorted(folder.glob("*.ipynb"))
    cells = [(p.name, c) for p in pages for c in nbformat.read(p, 4).cells if c.cell_type == "code"]
    drawn = [(name, c) for name, c in cells if any("image/png" in o.get("data", {}) for o in c.outputs)]
    assert len({name for name, _ in drawn}) >= 10
    dumb = [
        (name, c.source) for name, c in drawn if len(c.metadata.get("mystnb", {}).get("image", {}).get("alt", "")) < 40
    ]
    assert not dumb


def test_words_of_a_figure_reach_readers_who_cannot_see_it(notebook, tmp_path):
    """From the cell that draws it to the built page, once, whatever characters are in them."""
    words = 'Recall@10 of "ADI" & others, all < 0.7.'
    source = notebook(
        "import matplotlib.pyplot as plt\nfrom adi_lite.experiments.plots import show",
        f"figure, _ = plt.subplots()\nshow(figure, {words!r})",
        "figure, _ = plt.subplots()\nplt.show()",
    )
    book = tmp_path / "book"
    book.mkdir()
    publish(source, book / "index.ipynb", "full")
    cell = nbformat.read(book / "index.ipynb", 4).cells[3]
    (output,) = cell.outputs
    assert output.metadata == {"image/png": {"alt": words}}, "where nbconvert looks"
    assert output.data["text/plain"] == "<Figure size 640x480 with 1 Axes>"
    assert cell.metadata == {"mystnb": {"image": {"alt": words}}}, "where MyST-NB looks"
    (book / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (book / "_config.yml").write_text('execute:\n  execute_notebooks: "off"\n')
    tool = Path(sys.executable).with_name("jupyter-book")
    done = subprocess.run([tool, "build", book, "-W", "-n"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    soup = BeautifulSoup((book / "_build" / "html" / "index.html").read_text(), "html.parser")
    first, second = (tag["alt"] for tag in soup.select(".cell_output img"))
    assert first == words and second.startswith("_images/"), "a figure without words says its file's name"


def test_a_notebook_without_parameters_is_refused():
    bare = new_notebook(cells=[new_code_cell("profile = 3")])
    with pytest.raises(ValueError, match='one cell tagged "parameters"'):
        take_parameters(bare, profile="full")


def test_quick_pages_go_to_a_copy(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "BUILD", tmp_path)
    copy = build._copy_of_book()
    assert copy.is_relative_to(tmp_path)
    assert (copy / "_toc.yml").read_text() == (BOOK / "_toc.yml").read_text()
    assert not list(copy.rglob("*.py"))
