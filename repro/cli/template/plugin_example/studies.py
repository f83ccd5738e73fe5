"""A study: what is trained and drawn, and the report of it."""

from repro.studies import Drawn, Plan, Report, Study

__all__ = ["TwoWidths"]


class TwoWidths(Study):
    """Networks of two widths on the same noises."""

    name = "two_widths"
    figure = "none of the paper"
    scales = ("tiny",)

    def plan(self, plan: Plan) -> dict[str, Drawn]:
        """Trains a network of each width, then draws a bank from each."""
        banks = {}
        for width in (4, 16):
            run = plan.fit(f"width_{width}", "two_convolutions", {"model.network.width": width}, seconds=10)
            banks[f"width {width}"] = plan.draw(run.name, run, "0-99")
        return banks

    def report(self, report: Report, parts: dict[str, Drawn]) -> None:
        """Tables and figures of how alike they are."""
        compared = report.compare(parts)
        report.comparison("results", compared)
        report.text(str(compared))
