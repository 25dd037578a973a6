"""Cluster settings of an experiment file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ClusterSettings(BaseModel):
    """Resources that a job requests from a running cluster before it begins, so that an autoscaler starts the nodes.

    Without effect on this machine alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: Annotated[int, Field(ge=0)] = 0
    """CPUs of the whole cluster."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of the whole cluster."""
    wait_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30
    """Minutes to wait for these resources."""
