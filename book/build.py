"""Run the notebooks and build the book: ``python -m book.build --profile quick`` (see the Makefile).

Notebooks run in ``notebooks/`` and are written elsewhere: into a copy of the book below ``_build``, or, with
``--publish``, into ``book/results``, the pages in git. A page is replaced only by a notebook that ran to its end. What a
notebook writes to standard error is shown while it runs, and is not kept.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from adi_lite.atomic import replacing
from book import processor
from book.normalise import normalise, stderr_of, take_parameters

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, BOOK, BUILD = ROOT / "notebooks", ROOT / "book", ROOT / "_build"
HEARTBEAT_S = 20.0
LAST = "00"
"""The front page of the results sums up what the other pages ran."""


class NotebookError(RuntimeError):
    """A notebook did not run to its end, or may not be stored; the message is for the reader."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit status is 1 if a notebook or the build failed."""
    options = _options(arguments)
    notebooks = _chosen(options.only)
    if options.refresh:
        return _refresh_all(notebooks, whole=not options.only)
    failed, source = 0, BOOK
    if not options.pages_only:
        source = BOOK if options.publish else _copy_of_book()
        failed = _run_all(notebooks, lambda n: publish(n, source / "results" / n.name, options.profile))
    return max(failed, build(source))


def publish(notebook: Path, page: Path, profile: str) -> None:
    """Run ``notebook`` at a profile and, if it ran to its end, put the result in the place of ``page``."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / notebook.name
        _execute(notebook, made, {"profile": profile})
        result = normalise(take_parameters(nbformat.read(made, 4), profile=profile))
        _replace(page, result)


def refresh(notebook: Path) -> None:
    """Run ``notebook`` as it stands and store its outputs in it, for the tests that compare them."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / notebook.name
        _execute(notebook, made, {})
        result = nbformat.read(made, 4)
        if noise := stderr_of(result):
            raise NotebookError(f"wrote to standard error, so that its outputs cannot be compared: {noise[:500]}")
        _replace(notebook, normalise(result))


def _refresh_all(notebooks: list[Path], whole: bool) -> int:
    """Refresh notebooks; outputs of two kinds of processor may not stand side by side."""
    here, before = processor.processor(), processor.stored()
    if not whole and here != before:
        sys.exit(f"error: stored outputs were made on {before or 'an unknown processor'}, this is {here}: refresh all")
    failed = _run_all(notebooks, refresh)
    if whole and not failed:
        with replacing(processor.STORED) as partial:
            partial.write_text(here + "\n")
    return failed


def build(source: Path) -> int:
    """Build the pages of ``source`` into ``_build/html`` with warnings as errors; 0 if all went well."""
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
    tool = Path(sys.executable).with_name("jupyter-book")
    print("== building the pages", flush=True)
    start = time.monotonic()
    status = subprocess.run([tool, "build", source, "-W", "-n", "--keep-going", "-q"], cwd=ROOT, check=False).returncode
    if status:
        print(f"error: jupyter-book ended with status {status}: see its warnings above", file=sys.stderr)
        return 1
    print(f"== {_elapsed(start)}: {BUILD / 'html' / 'index.html'}", flush=True)
    return 0


def _run_all(notebooks: list[Path], run: Callable[[Path], None]) -> int:
    """Run each notebook, whichever fail; 1 if any did."""
    failed = []
    for number, notebook in enumerate(notebooks, 1):
        title, start = f"[{number}/{len(notebooks)}] {notebook.stem}", time.monotonic()
        with _heartbeat(title, start):
            try:
                run(notebook)
                outcome = "done"
            except (NotebookError, ValueError) as error:
                failed.append(notebook.name)
                outcome = "failed"
                print(f"error: {notebook.name}: {error}", file=sys.stderr, flush=True)
        print(f"{title}: {outcome} after {_elapsed(start)}", flush=True)
    if failed:
        print(f"error: failed, and their pages left as they were: {', '.join(failed)}", file=sys.stderr, flush=True)
    return int(bool(failed))


def _execute(notebook: Path, target: Path, parameters: dict[str, str]) -> None:
    if not any("parameters" in c.metadata.get("tags", []) for c in nbformat.read(notebook, 4).cells):
        raise NotebookError('has no cell tagged "parameters"')
    try:
        papermill.execute_notebook(
            notebook,
            target,
            parameters,
            cwd=notebook.parent,
            kernel_name="python3",
            language="python",
            log_output=True,
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # nothing about the transport
        )
    except PapermillExecutionError as error:
        line = error.source.strip().partition("\n")[0]
        raise NotebookError(f"{error.ename}: {error.evalue} (in the cell that starts with {line!r})") from None
    except DeadKernelError:
        raise NotebookError("the kernel died; it may have run out of memory") from None


def _replace(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a notebook so that a reader sees the old one or the new one, whole."""
    with replacing(path) as partial:
        nbformat.write(notebook, partial)


def _copy_of_book() -> Path:
    """The book's sources and committed pages, where new pages may be written: ``_build/book``."""
    copy = BUILD / "book"
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(BOOK, copy, ignore=shutil.ignore_patterns("*.py", "__pycache__", ".ipynb_checkpoints")))


@contextmanager
def _heartbeat(title: str, start: float) -> Iterator[None]:
    """A line at once, and one with the time that has passed every now and then."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_S):
            print(f"{title}: {_elapsed(start)}", flush=True)

    print(title, flush=True)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _elapsed(start: float) -> str:
    minutes, seconds = divmod(time.monotonic() - start, 60)
    return f"{minutes:.0f} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"


def _chosen(only: str) -> list[Path]:
    """The notebooks, in the order in which they run; ``only`` names some by the start of their names."""
    every = sorted(NOTEBOOKS.glob("[!.]*.ipynb"), key=lambda n: (n.name.startswith(LAST), n.name))
    starts = [s for s in only.split(",") if s]
    if lost := [s for s in starts if not any(n.name.startswith(s) for n in every)]:
        sys.exit(f"error: no notebook starts with {', '.join(lost)}; there are {', '.join(n.stem for n in every)}")
    return [n for n in every if not starts or n.name.startswith(tuple(starts))]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m book.build", description="Run the notebooks and build the book.")
    parser.add_argument(
        "--profile", choices=("smoke", "quick", "full"), default="quick", help="size of the experiments"
    )
    parser.add_argument("--only", default="", help="starts of notebooks' names, with commas: 01,09")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--publish", action="store_true", help="write the pages in git, book/results")
    where.add_argument("--pages-only", action="store_true", help="run nothing: build the pages in git")
    where.add_argument("--refresh", action="store_true", help="run the notebooks in place, as they stand")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.getLogger("papermill").setLevel(logging.WARNING)  # of the cells' outputs, standard error alone
    logging.basicConfig(format="    %(message)s")
    sys.exit(main())
