"""Two-tower models of packages from PyPI, trained by the packages' own trainers: ``python -m benchmarks.packages``."""

INSTALL = "python -m pip install --no-deps -r benchmarks/requirements-packages.txt"


class MissingPackageError(ImportError):
    """A package to be measured is not installed; the message says how to install it."""

    def __init__(self, package: str, error: ImportError) -> None:
        super().__init__(f"{package} cannot be imported ({error}); in an environment of its own: {INSTALL}")
