"""The folder of a run: ``run.json`` says which data and which settings its model was made from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from adi_lite.atomic import replacing
from adi_lite.data.packed import load_own
from adi_lite.data.registry import load_dataset
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.training.checkpoint import CheckpointError
from adi_lite.training.trainer import Trained, load_trained

RUN_FILE = "run.json"


class RunInfo(BaseModel):
    """What ``run.json`` says.

    Attributes:
        dataset: name of the data set; of a folder of tables, the folder's.
        options: options of the data set's loader.
        folder: where the tables or the packed data set are, for data of one's own.
        model: the method.
        config: name or file of the configuration.
        seed: of the run.
    """

    dataset: str
    options: dict[str, list[str] | str | float | int | None]
    folder: str | None = None
    model: str
    config: str
    seed: int

    def load_data(self) -> MultiDomainDataset:
        """The data set that the run was trained on."""
        if self.folder is not None:
            return load_own(self.folder, name=self.dataset, **self.options)
        return load_dataset(self.dataset, **self.options)

    def write(self, out: Path) -> None:
        with replacing(out / RUN_FILE) as partial:
            partial.write_text(self.model_dump_json(indent=1))

    @classmethod
    def read(cls, folder: Path) -> RunInfo:
        """What the run of a folder says of itself.

        Raises:
            ValueError: the folder is no run, or its file is damaged.
        """
        path = folder / RUN_FILE
        if not path.is_file():
            raise ValueError(f"{folder} is no run: it has no {RUN_FILE}; adi-lite train --out {folder} makes one")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path} is damaged: {where + ': ' if where else ''}{first['msg']}") from None

    def check_resumes(self, other: RunInfo, out: Path) -> None:
        """Refuse to go on with a run on other data or of another method, in a sentence."""
        for name, then, now in (
            ("data set", self.folder or self.dataset, other.folder or other.dataset),
            ("markets", self.options.get("markets"), other.options.get("markets")),
            ("model", self.model, other.model),
        ):
            if then != now:
                raise ValueError(f"{out} is a run with the {name} {then or 'by default'}, not {now or 'by default'}")


def open_run(folder: Path) -> tuple[RunInfo, MultiDomainDataset, Trained]:
    """A finished run: what it says, its data, and its model ready to score them.

    Raises:
        ValueError: no finished run, or its data have changed since.
    """
    about = RunInfo.read(folder)
    data = about.load_data()
    trained = load_trained(folder, data)
    if trained.config.model.method != about.model:
        raise CheckpointError(
            f"{folder} holds a model of another method than its {RUN_FILE} says: "
            f"{trained.config.model.method!r}, not {about.model!r}"
        )
    return about, data, trained
