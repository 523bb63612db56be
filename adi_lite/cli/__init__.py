"""The command line ``adi-lite``. Errors are one sentence and exit status 2."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError

from adi_lite.cli import data, experiments, retrieval, train
from adi_lite.cli.common import console

app = typer.Typer(help="Multi-domain retrieval that can be reproduced.", no_args_is_help=True, add_completion=False)
app.add_typer(data.app, name="data")
for part in (train, retrieval, experiments):
    app.add_typer(part.app)


def main() -> None:
    """Entry point: runs a command, and turns an error of the user's into one sentence and exit status 2."""
    run(app)


def run(app: typer.Typer) -> None:
    """Run a command of ``app``, as :func:`main`."""
    try:
        status = app(standalone_mode=False)
        if isinstance(status, int) and status:  # typer.Exit
            sys.exit(status)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        console.print("stopped; what was finished is kept")
        sys.exit(130)
    except ValidationError as error:
        _fail("; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (ValueError, FloatingPointError) as error:
        _fail(str(error))
    except Exception as error:
        if hasattr(error, "format_message"):  # a wrong option: typer's own words; empty where it showed the help
            _fail(error.format_message() or "name a command, such as those above")
        raise


def _fail(text: str) -> None:
    print("error:", " ".join(line.strip() for line in text.splitlines()), file=sys.stderr)
    sys.exit(2)
