"""Cluster settings, as they stand in an experiment file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ClusterSettings(BaseModel):
    """What a job asks a running cluster for before it begins, so that an autoscaler starts the nodes. Without effect
    on this machine alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: Annotated[int, Field(ge=0)] = 0
    """CPUs of the whole cluster."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of the whole cluster."""
    wait_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30
    """How long to wait for them."""
