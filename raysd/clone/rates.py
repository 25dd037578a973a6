"""How fast a device draws: a table of what is known, and one's own measurements, which come first.

Rates are kept per guided denoising step of one picture, and scaled to other numbers of steps and, in the table, to other sizes.
"""

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from raysd.clone.spec import CloneSpec
from raysd.storage.location import Location
from raysd.storage.results import Row, read_results

TABLE = Path(__file__).parent.parent / "assets" / "device_rates.yaml"
KIND = "rate"
UNGUIDED_SHARE = 0.58  # of a guided step's time, without the unconditional pass
START_SECONDS = 10.0  # until actors draw and after they have drawn, where nobody measured it
CPU = "CPU core"


@dataclass(frozen=True)
class Rate:
    """How fast one device draws."""

    device: str
    """As `A100`, `NVIDIA A100-SXM4-80GB` or `CPU core, AMD EPYC`."""
    seconds_per_step: float
    """Of one device, for a guided step of one picture at `image_size`."""
    image_size: int
    source: str
    start_seconds: float = START_SECONDS
    """From the call until actors draw, beside what is drawn."""

    def seconds_per_image(self, spec: CloneSpec) -> float:
        """Device seconds for a picture of a clone."""
        return self.seconds_per_step * guided_steps(spec) * (spec.image_size / self.image_size) ** 2


def guided_steps(spec: CloneSpec) -> float:
    """What a picture takes, in guided steps: those without the unconditional pass count in part."""
    share = spec.guidance_interval[1] - spec.guidance_interval[0] if spec.guidance_scale > 1 and spec.family.guidance == "classifier_free" else 0.0
    return spec.num_inference_steps * (share + (1 - share) * UNGUIDED_SHARE)


def same_device(one: str, other: str) -> bool:
    """True when one name says no more than the other: `A100` and `NVIDIA A100-SXM4-80GB`."""
    words = [set(re.split(r"[\s,-]+", name.casefold())) for name in (one, other)]
    return words[0] <= words[1] or words[1] <= words[0]


def find_rates(spec: CloneSpec, measured: list[Row]) -> list[Rate]:
    """The best known rate of each device for a clone: one's own of this pipeline and size, nearest in steps; else the table's."""
    own: dict[str, Rate] = {}
    mine = [row for row in measured if row["pipeline_key"] == spec.pipeline_key and row["image_size"] == spec.image_size]
    for row in sorted(mine, key=lambda row: abs(math.log(row["guided_steps"] / guided_steps(spec))), reverse=True):  # the nearest comes last, and stays
        own[row["device"]] = _own_rate(row)
    known = [rate for rate in _table(_family(spec)) if not any(same_device(rate.device, device) for device in own)]
    return [*own.values(), *known]


def read_rates(root: Location) -> list[Row]:
    """The measurements below a storage root."""
    return read_results(root, KIND)


def _own_rate(row: Row) -> Rate:
    source = f"measured {row['date']}, {row['num_inference_steps']} steps at guidance {row['guidance_scale']:g}"
    per_step = row["device_seconds_per_image"] / row["guided_steps"]
    return Rate(row["device"], per_step, row["image_size"], source, row["start_seconds"])


def _family(spec: CloneSpec) -> str:
    return "embedded" if spec.model.is_embedded else spec.family.pipeline


@cache
def _table(family: str) -> tuple[Rate, ...]:
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return tuple(Rate(row["device"], row["seconds_per_step"], row["image_size"], row["source"]) for row in rows if row["family"] == family)
