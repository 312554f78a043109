"""Are synthetic volumes copies of the people that the generator has seen?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.comparison import Measure, Statistic, Table, mean_difference
from evaluation.distance import squared_distances
from evaluation.fidelity import standardised
from evaluation.finding import Answer, Finding
from evaluation.profile import Profiles

Coarse = NDArray[np.floating[Any]]

# Of held-out subjects this share is nearer to a training subject than the limit, by construction.
EXPECTED_SHARE = 0.05
_SHIFT = 2
# Waves of displacement along each axis that registration may use: 3 knows turns, scalings, shears
# and bends of half the field of view, 32 in all with gain and offset.
_WAVES = 3
_PER_STRETCH = 64
# Both parts of a blend are among the subjects that it resembles most.
_MOST_ALIKE = 64
_COPY = 0.5


def measures(pooled: Profiles, train: Profiles, match: Match) -> list[Measure]:
    """What privacy is judged by, beside `duplicates` and `membership`.

    A synthetic set may be as near to the training subjects as new real subjects are, not nearer.

    Parameters
    ----------
    match : `best_match` of the pooled volumes.
    """
    image = 1 - match.likeness
    known = standardised(train.features, train.features)
    feature = nearest(standardised(pooled.features, train.features), known)
    return [
        Measure("copy_share", "Nearer to a training subject than 95 % of new people", "%",
                share_within(image), "above", 10.0, 100.0),
        Measure("feature_copy_share", "The same by features", "%", share_within(feature),
                "above", 10.0, 100.0),
        Measure("distance", "Distance to the nearest training subject, log of its ratio", "",
                mean_difference(np.log(np.maximum(image, 1e-6))[:, None]), "below", 0.3),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Match:
    """Best matches among training subjects.

    Parameters
    ----------
    likeness : (n,), correlation with it.
    who : (n,), its row.
    blend : (n,), multiple correlation with the two training subjects that explain most together.
    pair : (n, 2), their rows.
    """

    likeness: Table
    who: NDArray[np.int64]
    blend: Table
    pair: NDArray[np.int64]


def best_match(profiles: Profiles, train: Profiles) -> Match:
    """The training subject, and the two, that each volume resembles most in what sets people apart.

    Correlation of what is left of smoothed FA after the training mean. Each volume, and its
    mirror image, is first registered to that mean, so that a copy is not hidden by it: the best
    shift (up to 8 mm along each axis), then, to first order, the best smooth warp, gain and offset.
    """
    mean = train.coarse.astype(np.float32).mean(axis=0)
    warps = _warps(mean)
    known = _residual(train.coarse, mean, warps)
    likeness, who = np.empty(len(profiles)), np.empty(len(profiles), dtype=np.int64)
    blend, pair = np.empty(len(profiles)), np.empty((len(profiles), 2), dtype=np.int64)
    for start in range(0, len(profiles), _PER_STRETCH):
        images = profiles.coarse[start : start + _PER_STRETCH]
        plain, mirrored = (_residual(i, mean, warps) @ known.T for i in (images, images[:, ::-1]))
        turned = mirrored.max(axis=1) > plain.max(axis=1)
        found = np.where(turned[:, None], mirrored, plain).astype(np.float64)
        for i, one in enumerate(found, start):
            likeness[i], who[i] = one.max(), one.argmax()
            alike = np.sort(np.argsort(one)[-_MOST_ALIKE:])
            blend[i], best = _two(one[alike], known[alike])
            pair[i] = alike[best]
    return Match(likeness, who, blend, pair)


def _two(correlation: Table, images: Coarse) -> tuple[float, NDArray[np.int64]]:
    """Multiple correlation with the best two of (k, cells) images of length one, and their rows."""
    between = (images @ images.T).astype(np.float64)
    alone = 1 - between**2
    np.fill_diagonal(alone, np.inf)
    # Share of variance that two regressors explain, from their correlations.
    square = correlation**2
    both = np.outer(correlation, correlation)
    share = (square[:, None] + square - 2 * between * both) / alone
    best = np.array(np.unravel_index(share.argmax(), share.shape), dtype=np.int64)
    return float(np.sqrt(share.max())), best


def _warps(mean: Coarse) -> Coarse:
    """Orthonormal basis (cells, k) of what small smooth warps, gain and offset do to the mean."""
    along = [
        np.cos(np.pi * np.arange(_WAVES)[:, None] * (np.arange(n) + 0.5) / n) for n in mean.shape
    ]
    waves = [
        along[0][i][:, None, None] * along[1][j][:, None] * along[2][k]
        for i, j, k in product(range(_WAVES), repeat=3)
        if i + j + k < _WAVES
    ]
    moved = [(slope * wave).ravel() for slope in np.gradient(mean) for wave in waves]
    basis, _ = np.linalg.qr(np.stack([*moved, mean.ravel(), np.ones(mean.size)], axis=1))
    return basis.astype(np.float32)


def _residual(images: Coarse, mean: Coarse, warps: Coarse) -> Coarse:
    """Registered images less the mean, of length one each; (n, cells)."""
    steps = range(-_SHIFT, _SHIFT + 1)
    shifts = list(product(steps, steps, steps))
    # Moving the mean once instead of every image.
    moved = np.stack([np.roll(mean, [-d for d in shift], axis=(0, 1, 2)) for shift in shifts])
    targets = _centred(moved)
    out = np.empty((len(images), mean.size), dtype=np.float32)
    for i, image in enumerate(images):
        flat = image.astype(np.float32)
        best = int((targets @ _centred(flat[None])[0]).argmax())
        back = np.roll(flat, shifts[best], axis=(0, 1, 2)).ravel() - mean.ravel()
        back -= warps @ (warps.T @ back)
        out[i] = back / max(float(np.linalg.norm(back)), 1e-12)
    return out


def _centred(images: Coarse) -> Coarse:
    """Each image less its average, of length one; (n, cells)."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: Coarse = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return unit


def duplicates(match: Match, n: int, ids: Sequence[str] = ()) -> tuple[Finding, Finding]:
    """Synthetic volumes that resemble one training subject, or a mixture of two, as no new person
    does.

    The limit lies half way between the best match that a held-out subject finds among the
    training subjects and identity. One such volume fails the audit.

    Parameters
    ----------
    match : of the pooled volumes, of which the first `n` are synthetic and the others held out.
    ids : names of the synthetic volumes.
    """
    one = [f"training subject {int(k)}" for k in match.who]
    two = [f"training subjects {int(j)} and {int(k)}" for j, k in match.pair]
    return (
        _beyond("near_duplicates", "match a training subject", match.likeness, n, ids, one),
        _beyond("blends", "match two blended training subjects", match.blend, n, ids, two),
    )


def _beyond(
    name: str, what: str, match: Table, n: int, ids: Sequence[str], whom: Sequence[str]
) -> Finding:
    new = float(match[n:].max())
    limit = _COPY * new + (1 - _COPY)
    found = np.flatnonzero(match[:n] > limit)
    details = {}
    for i in found[:20]:
        value = float(match[i])
        details[f"{ids[i] if ids else f'volume {i}'}, like {whom[i]}"] = (value, value, value)
    count = float(len(found))
    return Finding(
        name, f"Volumes that {what} above {limit:.2f} (new people up to {new:.2f})", "",
        count, count, count, 0.0, verdict="fail" if count else "pass", details=details,
    )  # fmt: skip


def nearest(points: Table, train: Table) -> Table:
    """Distance of each of (n, d) points to its nearest of (m, d) training points; (n,)."""
    distances: Table = np.sqrt(squared_distances(points, train).min(axis=1))
    return distances


def share_within(distance: Table) -> Statistic:
    """Share of the first group nearer than all but 5 % of the second."""

    def one(first: Table, second: Table) -> float:
        limit = np.quantile(distance[second > 0], EXPECTED_SHARE)
        return float((distance[first > 0] < limit).mean())

    def statistic(first: Table, second: Table) -> Table:
        rows = [one(a, b) for a, b in zip(first, second, strict=True)]
        return np.array(rows)[:, None]

    return statistic


def copy_share(synthetic: Table, held_out: Table, train: Table) -> float:
    """Share of synthetic points nearer to a training point than all but 5 % of new ones are.

    A generator that copies nobody scores about `EXPECTED_SHARE`. The limit is a low quantile of
    few held-out subjects: with 20 of them it is near their smallest distance.
    """
    limit = np.quantile(nearest(held_out, train), EXPECTED_SHARE)
    return float((nearest(synthetic, train) < limit).mean())


def with_membership(answer: Answer, found: Finding) -> Answer:
    """The answer with what the model gives away. The verdict is on the maps and stays; the words
    tell those who think of sharing the model too."""
    words = answer.words
    if found.verdict == "fail":
        words += " The model itself tells whom it was trained on: share maps, not the model."
    return replace(answer, words=words, findings=(*answer.findings, found))


def membership(seen: Table, new: Table) -> Finding:
    """Can the generator's loss tell whom it was trained on? Area under the ROC curve above 0.5.

    The interval is DeLong's (DeLong et al. 1988). Fails if all of it lies above 0.1.

    Parameters
    ----------
    seen, new : (n,), (m,) denoising losses of training and of held-out subjects.
    """
    larger = (new[:, None] > seen).astype(float) + 0.5 * (new[:, None] == seen)
    gain = float(larger.mean()) - 0.5
    variance = larger.mean(axis=0).var(ddof=1) / len(seen) + larger.mean(axis=1).var(ddof=1) / len(
        new
    )
    half = 1.959964 * float(np.sqrt(variance))
    return Finding(
        "membership", "Membership read from the loss, area under ROC above chance", "",
        gain, gain - half, gain + half, 0.1, verdict="fail" if gain - half > 0.1 else "pass",
    )  # fmt: skip
