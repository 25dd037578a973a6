"""The commands as Python functions; the command line and the job scripts call these.

Each checks its input before Ray starts, and returns an object with what was made and its location.
`raysd.commands.show` prints it. An experiment is an `Experiment`, the path of its file, a mapping, or keywords.
"""

from raysd.commands.adapting import adapt
from raysd.commands.captioning import caption
from raysd.commands.checkup import doctor
from raysd.commands.classifiers import analyse, analyze, compare, evaluate, train
from raysd.commands.clones import export, generate, grow, growth_target, plan, score, verify
from raysd.commands.cost import benchmark
from raysd.commands.listing import list_storage
from raysd.commands.share import push
from raysd.commands.sweeps import DEMO, demo, report, sweep

__all__ = [
    "DEMO",
    "adapt",
    "analyse",
    "analyze",
    "benchmark",
    "caption",
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "generate",
    "grow",
    "growth_target",
    "list_storage",
    "plan",
    "push",
    "report",
    "score",
    "sweep",
    "train",
    "verify",
]
