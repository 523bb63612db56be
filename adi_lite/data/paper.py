"""The tables of the paper as data frames, for comparison with what is computed here."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).resolve().parents[2] / "data" / "paper"
TABLES = range(1, 10)


def paper_table(number: int) -> pd.DataFrame:
    """Table ``number`` (1 to 9) of arXiv 2206.09672 in long form, a row for each printed figure.

    Columns: table 1 ``feature_type, description``; 2, 3, 6, 7, 8 ``method, domain, metric, value``; 4 ``dataset,
    domain, quantity, value``; 5 ``dataset, domain, other_domain, quantity, value``; 9 ``metric, domain, value``, in
    percent. Domains are D1, D2, D3; ``avg`` is the column Avg of Table 3 and ``all`` the union over domains.

    Raises:
        ValueError: the paper has no such table.
        FileNotFoundError: the package is installed without its checkout, which holds the files.
    """
    if number not in TABLES:
        raise ValueError(f"the paper has tables 1 to 9, not {number!r}")
    path = FOLDER / f"table{number}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the paper's tables are files of a checkout; install it by pip install -e ."
        )
    return pd.read_csv(path)
