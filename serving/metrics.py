"""What Prometheus is told about sampling."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

# Seconds: a 2D volume takes a fraction of one, many 3D volumes take minutes.
SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


# prometheus_client must be imported after BentoML has named the folder in which its workers
# collect their numbers, and a name can be registered only once per process.
@cache
def sampling_seconds() -> Histogram:
    """Time from the start of a request's sampling to its end; waiting is not counted."""
    from prometheus_client import Histogram

    return Histogram("dti_sampling_seconds", "Seconds of sampling.", ["dim"], buckets=SECONDS)


@cache
def volumes_total() -> Counter:
    """Volumes given out."""
    from prometheus_client import Counter

    return Counter("dti_volumes_total", "Volumes given out.", ["dim", "map"])
