"""The same protocol machines in memory: one process, thousands of members, seeded drops."""

from choral.data.examples import Examples
from choral.simulation.cohort import Outcome, draw_drops, run_round
from choral.simulation.population import Divided, Folder, Population, divide, open_folder
from choral.simulation.report import Report, Summary
from choral.simulation.training import Simulation

__all__ = [
    "Divided",
    "Examples",
    "Folder",
    "Outcome",
    "Population",
    "Report",
    "Simulation",
    "Summary",
    "divide",
    "draw_drops",
    "open_folder",
    "run_round",
]
