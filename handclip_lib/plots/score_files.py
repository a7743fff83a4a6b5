"""What files of scores gave, as tables and figures in a folder."""

from pathlib import Path

from handclip_lib.evaluation.exchange.scoring import FileEvaluation
from handclip_lib.files import whole_file, write_text
from handclip_lib.plots.retrieval import cmc_curves
from handclip_lib.plots.verification import det_curves, roc_curves


def write_evaluation(found: FileEvaluation, folder: Path) -> None:
    """Write each table as CSV, in full precision, and DET, ROC and, where there are ranks, CMC as PNG."""
    for name, table in found.tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    figures = {"det": det_curves(found.verified), "roc": roc_curves(found.verified)}
    if found.identified:
        figures["cmc"] = cmc_curves(found.identified)
    for name, figure in figures.items():
        with whole_file(folder / f"{name}.png") as private:
            figure.savefig(private, dpi=144)
