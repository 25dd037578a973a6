"""The command that has a language model write captions of the classes."""

from typing import TYPE_CHECKING, Any

from raysd.commands.answers.captions import CaptionTable
from raysd.config import Experiment, ExperimentLike, load_experiment
from raysd.errors import UserError

if TYPE_CHECKING:
    from raysd.captions.spec import CaptionSpec


def caption(experiment: ExperimentLike = None, **values: Any) -> CaptionTable:
    """Have a language model write captions of each class, as a table that prompt variants read.

    Only what is missing is written. Run again after a kill, it goes on with the next class.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        values: keys of the experiment file, as `captions={"model": "Qwen/Qwen2.5-1.5B-Instruct"}`; merged into
            `experiment`.

    Raises:
        UserError: no model, a model or a server that refuses, a class for which too few captions are good.
        Failure: an exception was raised twice for a class; the captions of the others are there.
    """
    from raysd.captions.write import write_captions
    from raysd.storage.attempts import Attempt

    experiment = load_experiment(experiment, **values)
    spec = caption_spec_of(experiment)
    experiment.root.check_writable()
    with Attempt(experiment.root, f"captions {spec.fingerprint}"):
        name, num_written = write_captions(spec, experiment.root, experiment.generation)
    return CaptionTable(spec.folder(experiment.root), name, num_written)


def caption_spec_of(experiment: Experiment) -> "CaptionSpec":
    """Return what shapes the captions of an experiment's classes.

    Raises:
        UserError: no model, or one that cannot be read, or an instruction that the class table cannot fill.
    """
    from raysd.captions.spec import CaptionSpec
    from raysd.diffusion.checkpoint import plan_model
    from raysd.diffusion.tokenizers import prompt_tokenizers

    settings, generation = experiment.captions, experiment.generation
    if settings.model is None:
        remedy = "name a language model, as a folder or a hub id; or a server's, with captions.server"
        raise UserError("captions.model", None, remedy)
    model = None
    if settings.server is None:
        from raysd.captions.local_model import find_language_model

        model = find_language_model(settings.model, settings.revision)
    generator = plan_model(generation.model, generation.revision)
    spec = CaptionSpec(settings, experiment.table, model, tuple(prompt_tokenizers(generator)))
    spec.check()
    return spec
