"""The question of privacy: whether synthetic volumes are copies of the training subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evaluation.block_features import standardised
from evaluation.comparison import Float64Array, Measure, mean_difference
from evaluation.copy_search import BestMatch
from evaluation.copy_share import nearest_distance, share_below_limit
from evaluation.measurements import Measurements
from evaluation.results import Answer, Finding

# The limit for copies lies this far from the best match of a new person towards identity.
_COPY_LIMIT = 0.5
_MAX_LISTED = 20
# A membership attack that does better than chance by more than this area under the curve fails.
_MEMBERSHIP_TOLERANCE = 0.1


def measures(pooled: Measurements, train: Measurements, match: BestMatch) -> list[Measure]:
    """Returns the measures of privacy that compare groups.

    Synthetic volumes may be as near to the training subjects as new real subjects are, and not
    nearer.

    Parameters
    ----------
    pooled : of the synthetic and, after them, of the held-out real volumes.
    train : of the real subjects that the generator was trained on.
    match : the best matches of the pooled volumes among the training subjects.
    """
    image = 1 - match.correlation
    known = standardised(train.features, train.features)
    feature = nearest_distance(standardised(pooled.features, train.features), known)
    return [
        Measure("copy_share", "Nearer to a training subject than 95 % of new people", "%",
                share_below_limit(image), "above", 10.0, 100.0),
        Measure("feature_copy_share", "The same by features", "%", share_below_limit(feature),
                "above", 10.0, 100.0),
        Measure("distance", "Distance to the nearest training subject, log of its ratio", "",
                mean_difference(np.log(np.maximum(image, 1e-6))[:, None]), "below", 0.3),
    ]  # fmt: skip


def duplicates(match: BestMatch, n: int, ids: Sequence[str] = ()) -> tuple[Finding, Finding]:
    """Returns the number of synthetic volumes that are copies of one subject, and blends of two.

    A volume counts that resembles a training subject, or a linear combination of two, more than
    any held-out subject does by half of what is left to identity. One such volume fails the audit.

    Parameters
    ----------
    match : of the pooled volumes, of which the first `n` are synthetic and the others held out.
    ids : the names of the synthetic volumes.
    """
    one = [f"training subject {int(k)}" for k in match.subject]
    two = [f"training subjects {int(j)} and {int(k)}" for j, k in match.pair]
    return (
        _count_copies("near_duplicates", "match a training subject", match.correlation, n, ids,
                      one),
        _count_copies("blends", "match two blended training subjects", match.pair_correlation, n,
                      ids, two),
    )  # fmt: skip


def _count_copies(
    name: str,
    description: str,
    correlation: Float64Array,
    n: int,
    ids: Sequence[str],
    matched: Sequence[str],
) -> Finding:
    best_of_new = float(correlation[n:].max())
    limit = best_of_new + _COPY_LIMIT * (1 - best_of_new)
    copies = np.flatnonzero(correlation[:n] > limit)
    details = {}
    for i in copies[:_MAX_LISTED]:
        value = float(correlation[i])
        volume = ids[i] if ids else f"volume {i}"
        details[f"{volume}, like {matched[i]}"] = (value, value, value)
    count = float(len(copies))
    label = f"Volumes that {description} above {limit:.2f} (new people up to {best_of_new:.2f})"
    return Finding(
        name, label, "", count, count, count, 0.0, verdict="fail" if count else "pass",
        details=details,
    )  # fmt: skip


def with_membership(answer: Answer, found: Finding) -> Answer:
    """Returns the answer with the finding of a membership attack on the model.

    The verdict is about the volumes and does not change. Where the attack succeeds, the words
    warn of sharing the model.
    """
    words = answer.words
    if found.verdict == "fail":
        words += " The model itself tells whom it was trained on: share maps, not the model."
    return replace(answer, words=words, findings=(*answer.findings, found))


def membership(seen: Float64Array, new: Float64Array) -> Finding:
    """Returns how well the generator's loss tells training from held-out subjects.

    The value is the area under the ROC curve less 0.5. Its interval is that of DeLong et al.
    (1988). The finding fails if the whole interval lies above 0.1.

    Parameters
    ----------
    seen, new : (n,) and (m,), denoising losses of training and of held-out subjects.
    """
    larger = (new[:, None] > seen).astype(float) + 0.5 * (new[:, None] == seen)
    gain = float(larger.mean()) - 0.5
    variance = larger.mean(axis=0).var(ddof=1) / len(seen)
    variance += larger.mean(axis=1).var(ddof=1) / len(new)
    half_width = 1.959964 * float(np.sqrt(variance))
    low, high = gain - half_width, gain + half_width
    return Finding(
        "membership", "Membership read from the loss, area under ROC above chance", "",
        gain, low, high, _MEMBERSHIP_TOLERANCE,
        verdict="fail" if low > _MEMBERSHIP_TOLERANCE else "pass",
    )  # fmt: skip
