"""The verbs as Python functions; the command line and the job scripts call these.

Each checks its input before Ray starts, and ends by saying what was made, where it lies, and what to run next.
"""

from raysd.commands.classifiers import analyze, compare, evaluate, train
from raysd.commands.clones import export, generate, grow, growth_target, plan, score, verify
from raysd.commands.cost import benchmark
from raysd.commands.doctor import doctor
from raysd.commands.sweeps import DEMO, demo, report, sweep

__all__ = [
    "DEMO",
    "analyze",
    "benchmark",
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "generate",
    "grow",
    "growth_target",
    "plan",
    "report",
    "score",
    "sweep",
    "train",
    "verify",
]
