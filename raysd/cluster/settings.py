"""Cluster settings of an experiment file."""

from typing import Annotated

from pydantic import Field

from raysd.settings import Section, Unit


class ClusterSettings(Section):
    """Resources that a job requests from a running cluster before it begins, so that an autoscaler starts the nodes.

    Without effect on this machine alone.
    """

    cpus: Annotated[int, Field(ge=0), Unit("CPUs")] = 0
    """CPUs of the whole cluster that must be there before the job begins; 0 waits for none."""
    gpus: Annotated[int, Field(ge=0), Unit("GPUs")] = 0
    """GPUs of the whole cluster that must be there before the job begins; 0 waits for none."""
    wait_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False), Unit("minutes")] = 30
    """Minutes to wait for these resources, after which the job stops with an error."""
