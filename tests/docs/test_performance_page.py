"""docs/performance.md: figures that it explains are those of the report."""

from benchmarks.swap_agreement import Agreement, tell
from tests.docs.pages import codes, read, table


def test_every_figure_of_agreement_is_explained() -> None:
    figures = tell([Agreement(asked=0.0, unready=1.0, ready=1.01, served=(1.1, 1.2))], 1).figures
    rows = table(read("docs/performance.md"), "figures swap.agreement")
    assert [codes(row[0]) for row in rows] == [[name] for name in figures]
