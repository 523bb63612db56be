"""What the scripts in ``benchmarks/`` measured and published, as tables."""

from __future__ import annotations

import json

import pandas as pd

from adi_lite.experiments.store import PUBLISHED


def measured(name: str) -> dict:
    """The published result called ``name``, e.g. ``retrieval_speed``.

    Raises:
        FileNotFoundError: nothing of this name is published; the message says what there is.
    """
    path = PUBLISHED / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PUBLISHED.glob("*.json"))) or "none"
        raise FileNotFoundError(
            f"{path} is missing; published are {known}. A script in benchmarks/ writes it: --publish"
        )
    return json.loads(path.read_text())


def machine_lines(name: str, result: dict) -> list[str]:
    """On what and when the result called ``name`` was measured; parts that were measured apart, on lines of their own."""
    apart = result.get("measured_apart", {})
    parts_of: dict[str, list[str]] = {}
    for part, about in apart.items():
        parts_of.setdefault(machine_line({"about": about}), []).append(part)
    told = {part for part in result if part in apart or _sides_apart(part, result[part], apart)}
    whole = set(result) - {"about", "goal", "measured_apart"} - told
    lines = [f"{name}: {machine_line(result)}"] if whole else []
    return lines + [f"{name} ({', '.join(parts)}): {line}" for line, parts in parts_of.items()]


def _sides_apart(part: str, sides: object, apart: dict) -> bool:
    """Whether every side of a part, seconds to a target, was measured apart."""
    return part == "recall" and all(f"recall of {side}" in apart for side in sides if side != "target")


def machine_line(result: dict) -> str:
    """On what and when a result was measured."""
    about = result["about"]
    return (
        f"{about['when'][:10]}, {about['processor']}, {about['cores']} cores, {about['threads']} threads, "
        f"load average {about['load_average']:.1f}, torch {about['torch']}, adi-lite {about['adi_lite']}"
    )


GROWTH = {
    "records": "records",
    "items": "items",
    "shared": "shared networks K",
    "domains": "domains D",
    "width": "width",
}
"""What grows: the part of the benchmark, and what it is called."""


def train_table(benchmarks: dict) -> pd.DataFrame:
    """Batch size and method: records/s, ms a step, and times ADI's step."""
    rows = {
        (int(batch), name): (row["records_per_second"], row["ms_per_step"], row["times_reference"])
        for batch, methods in benchmarks["speed"].items()
        for name, row in methods.items()
    }
    return _two_levels(rows, ["batch", "model"], ["records/s", "ms a step", "times ADI"])


def _two_levels(rows: dict[tuple, tuple | dict], names: list[str], columns: list[str] | None = None) -> pd.DataFrame:
    """A line for each pair of keys, whose two parts are called ``names``."""
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    table.index = pd.MultiIndex.from_tuples(rows, names=names)
    return table


def growth_table(benchmarks: dict) -> pd.DataFrame:
    """Slope of processor time, by what grows and by model."""
    return pd.DataFrame({t: benchmarks[p]["slope_of_cpu_time"] for p, t in GROWTH.items() if p in benchmarks})


def package_table(packages: dict) -> pd.DataFrame:
    """Each model beside ADI-SE: package, what a record is compared with, records/s, and times ADI's time."""
    columns = {
        "title": "model",
        "package": "package",
        "negatives": "negatives of a record",
        "records_per_second": "records/s",
        "records_per_cpu_second": "records a processor second",
        "times_adi_cpu": "times ADI-SE's processor time",
        "prepare_seconds": "preparation, s",
    }
    table = pd.DataFrame.from_dict(packages["speed"], orient="index")[list(columns)].rename(columns=columns)
    return table.fillna({"package": "adi-lite"})


def features_table(benchmarks: dict) -> pd.DataFrame:
    """Training with all features of the simulator: records/s and times ADI-SE's time."""
    columns = {"records_per_second": "records/s", "records_per_cpu_second": "records a processor second"}
    table = pd.DataFrame.from_dict(benchmarks["features"]["methods"], orient="index")
    return table[[*columns, "times_reference_cpu"]].rename(
        columns={**columns, "times_reference_cpu": "times ADI-SE's processor time"}
    )


def recall_table(packages: dict) -> pd.DataFrame:
    """Seconds of training until the target's Recall@10 on validation queries (empty: not reached), and the best seen."""
    titles = package_table(packages)
    rows = {
        f"{titles.loc[name, 'model']} ({titles.loc[name, 'package']})": (
            side["seconds"],
            side["best"],
            side["epochs"],
            side["curve"][-1]["seconds"],
        )
        for name, side in packages["recall"].items()
        if name != "target"
    }
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["seconds to the target", "best Recall@10", "epochs", "seconds in all"]
    )


GOALS = {
    "records_per_second": ("ADI, records a second of training", "≥"),
    "records_per_cpu_second": ("ADI, records a processor second of training", "≥"),
    "peak_mib": ("peak memory of training, MiB", "≤"),
    "times_plain_row": ("ADI, times the records a second of the plain loop, batches of {}", "≥"),
    "share_of_bound": ("share of the bound of a step, batches of {}", "≥"),
    "features": ("ADI-SE with all features, records a second", "≥"),
    "whole_corpus": ("Recall@1000 of 10,000 records over 100,000 items, s", "≤"),
    "times_package": ("ADI-SE, times the records a second of {}", "≥"),
    "times_faiss": ("retrieval, times the time of faiss alone", "≤"),
    "rate": ("requests a second served, {} index", "≥"),
    "p99_ms": ("p99 latency, {} index, ms", "≤"),
    "errors": ("failed requests, {} index", "≤"),
}
"""What the goals of the published results are called, and whether more or less is wanted."""


def goal_table(*results: dict) -> pd.DataFrame:
    """Every goal of the results: what was measured, what was asked, whether it is reached."""
    rows = []
    for result in results:
        threads = ", one thread" if result["about"].get("threads") == 1 else ""
        for key, goal in result.get("goal", {}).items():
            kind, _, of = key.partition("/")
            name, sign = GOALS[kind]
            of = of or str(result["about"].get("kind", ""))
            reached = "yes" if goal["reached"] else "no"
            rows.append((name.format(of) + threads, goal["measured"], f"{sign} {goal['goal']:,}", reached))
    return pd.DataFrame(rows, columns=["", "measured", "goal", "reached"]).set_index("")


def processes_table(processes: dict) -> pd.DataFrame:
    """Training by one process and several, tables in memory and on disk: records/s, and the largest process's MiB."""
    columns = ["records/s", "times one process", "peak, MiB", "of it anonymous, MiB"]
    rows = {
        name: (
            side["records_per_second"],
            side["times_speed_of_first"],
            max(side["peak_mib"]),
            max((a for a in side["anonymous_mib"] if a is not None), default=float("nan")),
        )
        for name, side in processes["sides"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


PACKING = {
    "pack": "packing",
    "load": "loading into memory",
    "train_packed": "training, packed",
    "train_in_memory": "training, in memory",
}


def packing_table(packing: dict) -> pd.DataFrame:
    """By number of records, seconds and anonymous MiB of packing tables, of loading them, and of training from either."""
    rows = {
        (f"{int(records):,}", title): (point[side]["seconds"], point[side]["anonymous_mib"])
        for records, point in packing["records"].items()
        for side, title in PACKING.items()
    }
    return _two_levels(rows, ["records", ""], ["seconds", "anonymous memory, MiB"])


def step_table(benchmarks: dict) -> pd.DataFrame:
    """By batch size, ms of the parts of a step and of their bounds, and the share of the bound that is reached."""
    columns = {}
    for batch_size, bound in benchmarks["bound"].items():
        rows = {("measured, ms", part): ms for part, ms in bound["cpu_ms"].items()}
        rows |= {("bound, ms", part): ms for part, ms in bound["bound_ms"].items()}
        rows["bound / measured", "whole step"] = bound["share_of_bound"]
        columns[f"batches of {int(batch_size):,}"] = pd.Series(rows)
    return pd.DataFrame(columns).rename_axis(index=["", "part"])


def evaluation_table(benchmarks: dict) -> pd.DataFrame:
    """Seconds of the parts of the evaluation over a whole corpus and of their bounds, and the share that is reached."""
    bound = benchmarks["whole_corpus"]["bound"]
    table = pd.DataFrame({"measured, s": bound["seconds"], "bound, s": bound["bound_seconds"]})
    table.loc["together"] = table.sum()
    return table.assign(**{"bound / measured": table["bound, s"] / table["measured, s"]})


def search_table(retrieval: dict) -> pd.DataFrame:
    """Users a second and times faiss's, by wall clock and by processor time."""
    columns = {
        "users_per_second": "users/s",
        "seconds": "seconds",
        "times_faiss": "times faiss",
        "times_faiss_cpu": "times faiss, processor",
    }
    return pd.DataFrame.from_dict(retrieval["search"], orient="index")[list(columns)].rename(columns=columns)


def load_table(*results: dict) -> pd.DataFrame:
    """Each run of a service under load: rate and latencies."""
    columns = {"rate": "requests/s", "p50_ms": "p50, ms", "p95_ms": "p95, ms", "p99_ms": "p99, ms", "max_ms": "max, ms"}
    rows = {
        (result["about"]["kind"], n): {**{title: run[c] for c, title in columns.items()}, "errors": run["errors"]}
        for result in results
        for n, run in enumerate(result["runs"], 1)
    }
    return _two_levels(rows, ["index", "run"])


def trials_table(dataset: str, metric: str) -> pd.DataFrame:
    """What was tried on validation data: a line for each point of the search, a column for each method, best value last.

    Raises:
        FileNotFoundError: no trials of the data set are published.
    """
    folder = PUBLISHED / "tuning" / dataset
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no trials; adi-lite tune all --dataset {dataset} --out {folder} makes them"
        )
    columns = {m: {_words(t["settings"]): t[metric] for t in trials} for m, trials in found.items()}
    table = pd.DataFrame(columns)
    table.loc["best"] = table.max()
    return table.rename_axis(index="settings", columns=f"validation {metric}")


def _words(settings: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "the frame as it is"
