"""The report of a study: tables, one picture, a TensorBoard log and text, all in the study's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.banks import Bank
from repro.comparison import Comparison, PairCounts
from repro.files import csv_text, make_folder, write_text
from repro.plots import above, beside, rendered, save_pixels
from repro.studies.plan import Drawn
from repro.studies.scales import Scale

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

__all__ = ["Report", "controls_of", "rate_cells", "rate_text"]


class Report:
    """Collects what a study found, writing every part to the study's folder as it comes.

    Args:
        name: Of the study; its picture is ``NAME.png``.
        folder: The study's folder.
        scale: How large the study is.
    """

    def __init__(self, name: str, folder: Path, scale: Scale) -> None:
        self.name, self.folder, self.scale = name, folder, scale
        self._parts: list[str] = []
        self._written: list[str] = []
        self._logged = False
        make_folder(folder)

    def compare(self, banks: Mapping[str, Drawn | Bank], train: Any = None, **options: Any) -> Comparison:
        """Compares banks under the scale's descriptor and threshold.

        Args:
            banks: Banks by the name that tables and figures give them.
            train: As in :func:`repro.comparison.compare`, like all other options.
        """
        opened = [each.bank if isinstance(each, Drawn) else each for each in banks.values()]
        return self.scale.judge.compare(opened, train, names=[*banks], **options)

    def text(self, *lines: str) -> None:
        """Adds a paragraph of lines to what is printed in the end."""
        self._parts.append("\n".join(lines))

    def table(self, name: str, rows: Iterable[Mapping[str, Any]], under: Comparison | None = None) -> None:
        """Writes rows as ``NAME.csv``, empty where nothing is known.

        Args:
            name: Of the table.
            rows: One mapping a row, all with the same keys.
            under: A comparison under whose conditions all of them were counted: these become the first columns.
        """
        conditions = {} if under is None else under.conditions.cells() | {"data": self.scale.learned}
        cells = [{**conditions, **row} for row in rows]
        path = self.folder / f"{name}.csv"
        make_folder(path.parent)
        write_text(path, csv_text(cells))
        self._written.append(f"table: {path}")

    def comparison(self, name: str, compared: Comparison, figures: bool = True) -> None:
        """Writes a whole comparison to a folder: every pair, matrices, grids and a TensorBoard log.

        Args:
            name: Of the folder in the study's folder.
            compared: The comparison.
            figures: False leaves its figures and its log out.
        """
        compared.write(self.folder / name, figures=figures)
        if figures:
            compared.to_tensorboard(self.folder / name)
            self._logged = True
        self._written.append(f"tables and figures of every pair: {self.folder / name}")

    def figure(self, *rows: Sequence[Figure | Sequence[Figure]], values: Mapping[str, float] | None = None) -> None:
        """Writes the picture of the study, ``NAME.png``, and logs it to TensorBoard.

        Args:
            rows: What stands side by side, rows of it one above the other: figures, and columns of figures.
            values: Numbers to log beside it, by name.
        """
        from torch.utils.tensorboard import SummaryWriter

        picture = above([beside([_column(each) for each in row]) for row in rows])
        path = self.folder / f"{self.name}.png"
        save_pixels(picture, path)
        with SummaryWriter(str(self.folder / "results")) as log:
            log.add_image(self.name, picture, dataformats="HWC")
            for key, value in (values or {}).items():
                log.add_scalar(f"{self.name}/{key}", value)
        self._logged = True
        self._written.append(f"picture: {path}")

    def __str__(self) -> str:
        log = [f"curves and images: tensorboard --logdir {self.folder}"] if self._logged else []
        return "\n\n".join([*self._parts, "\n".join([*self._written, *log])])


def _column(figures: Figure | Sequence[Figure]) -> np.ndarray:
    return above([rendered(each) for each in figures]) if isinstance(figures, Sequence) else rendered(figures)


def controls_of(score: PairCounts) -> np.ndarray:
    """Rates of a score on shuffled noises.

    Raises:
        ValueError: it was counted without a control.
    """
    if score.control_rates is None:
        raise ValueError("this score was counted without its control")
    return score.control_rates


def rate_cells(score: PairCounts, first: int, second: int, key: str = "rp") -> dict[str, Any]:
    """Cells of a table for one pair of systems: the rate under ``key``, its 95 % interval, the control's rate, n."""
    low, high = score.interval(first, second)
    return {
        key: float(score.rates[first, second]),
        "low": low,
        "high": high,
        "control": float(controls_of(score)[first, second]),
        "n": int(score.totals[first, second]),
    }


def rate_text(row: Mapping[str, Any], key: str = "rate", low: str = "low", high: str = "high") -> str:
    """Returns a rate with its interval.

    Example:
        >>> rate_text({"rate": 0.5, "low": 0.4, "high": 0.6})
        '0.500 (0.400-0.600)'
    """
    return f"{row[key]:.3f} ({row[low]:.3f}-{row[high]:.3f})"
