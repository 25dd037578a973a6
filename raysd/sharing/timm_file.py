"""What timm lacks to open a classifier: a module of the repository, for the ResNets of small images.

timm builds a network from `architecture` and `model_args` of `config.json`. The stems of all its ResNets have a stride
of 4, and no argument changes that; its networks of free blocks take those as objects, which JSON cannot hold. So a
ResNet for small images has no form in timm alone.
"""

import inspect

from raysd.classifier import architecture
from raysd.classifier.architecture import SMALL

FILE = "small_stem.py"
IMPORT = "from raysd.classifier.architecture import SMALL, SMALL_RESNETS\n"


def timm_file(name: str) -> str | None:
    """Return the module that makes a network known to timm, without raysd; None where timm has the network."""
    if not name.startswith(SMALL):
        return None
    from raysd.classifier import small_stem

    source = inspect.getsource(small_stem)
    if IMPORT not in source:
        raise AssertionError(f"small_stem.py no longer begins with {IMPORT!r}")
    constants = f"SMALL, SMALL_RESNETS = {architecture.SMALL!r}, {architecture.SMALL_RESNETS!r}\n"
    return source.replace(IMPORT, constants).replace("import raysd.classifier.small_stem", "import small_stem")
