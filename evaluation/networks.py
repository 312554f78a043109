"""What small convolutional networks learn from synthetic volumes: sex and age of real subjects.

2D (slice-wise) and 3D (volume-wise) networks, trained on real, on synthetic and on both, always
tested on held-out real subjects. No setting is chosen by looking at those: there is no early stop
and no validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.console import progress
from contracts.maps import MapSpec
from evaluation.cohort import Cohort
from evaluation.finding import Finding

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]
Table = NDArray[np.float64]
Rows = NDArray[np.int64]

CHANNELS = {"2d": (16, 32, 64, 64), "3d": (8, 16, 32)}
# A slice with less brain than this share of the fullest one says little.
_FULL = 0.25


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How the networks are built and trained; fixed beforehand, the same for every training set.

    The defaults were chosen on real training subjects of the simulated cohort at 4 mm.

    Parameters
    ----------
    dim : ``2d``: axial slices, whose predictions are averaged over a subject; ``3d``: volumes.
    epochs : passes over the real training subjects; all sets get that many steps.
    seeds : trainings per set. Each has its own start, order and, where one set is larger than
        the other, its own choice of as many subjects.
    seed : first seed.
    batch : subjects per step, at least 2.
    slices : slices drawn of each of them; 2D only.
    channels : of each level, which halves the resolution; None: `CHANNELS`. In 3D a fourth level
        learnt 60 subjects by heart; a finer grid may need it to see as far.
    learning_rate, weight_decay : AdamW's; the rate falls to zero along a half cosine.
    draws : of the bootstrap.
    """

    dim: Literal["2d", "3d"]
    epochs: int = 40
    seeds: int = 5
    seed: int = 0
    batch: int = 4
    slices: int = 8
    channels: tuple[int, ...] | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    draws: int = 2000


class _Said(NamedTuple):
    """What one trained network says of the test subjects: ages in years and log odds of male."""

    age: Table
    male: Table


def compare(
    synthetic: Cohort,
    train: Cohort,
    test: Cohort,
    maps: tuple[MapSpec, ...],
    settings: NetworkSettings,
) -> tuple[Finding, ...]:
    """Train on each set, test on real subjects, tell the differences; nothing is judged.

    For age (mean absolute error) and sex (area under the ROC curve): trained on synthetic less
    trained on as many real subjects, and real + synthetic less real alone. Values are means over
    seeds. Intervals are 95 % of a bootstrap that draws seeds and, within each sex, test subjects
    anew, the same for both sides of a difference (Owen 2007, Annals of Applied Statistics 1: the
    pigeonhole bootstrap). With one seed they are over test subjects alone. They do not say what
    other training subjects would have done, but for the choice of as many.

    Parameters
    ----------
    train, test : real subjects; none may be in both. The volumes' first axis runs from left to
        right, the third upwards.
    maps : of the volumes.

    Returns
    -------
    Findings whose ``details`` give each training set's own numbers. Without men or without women
    among the test subjects there is none on sex.

    Raises
    ------
    ValueError : if a set is empty.
    """
    import torch

    if not (len(synthetic) and len(train) and len(test)):
        raise ValueError("expected at least one synthetic, one training and one test volume")
    sets = _training_sets(len(synthetic), len(train), settings)
    pool = _Pool((train, synthetic), maps, settings)
    steps = settings.epochs * math.ceil(len(train) / settings.batch)
    jobs = [(name, s) for name in sets for s in range(settings.seeds)]
    said: dict[str, list[_Said]] = {name: [] for name in sets}
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for name, s in progress(jobs, len(jobs), f"{settings.dim.upper()} networks"):
            said[name].append(_learn(pool, sets[name][s], test, steps, settings, settings.seed + s))
    return _findings(said, _as_many(len(synthetic), len(train)), train, test, settings)


def _training_sets(made: int, real: int, settings: NetworkSettings) -> dict[str, list[Rows]]:
    """Rows of the pool (real subjects first) per training set and seed."""
    k = min(made, real)
    sets: dict[str, list[Rows]] = {}
    for s in range(settings.seeds):
        rng = np.random.default_rng((settings.seed + s, 1))
        # Where there are as many synthetic as real subjects, the real set is its own match.
        rows = {
            _as_many(made, real): np.sort(rng.permutation(real)[:k]),
            "real": np.arange(real),
            "synthetic": real + np.sort(rng.permutation(made)[:k]),
            "real + synthetic": np.arange(real + made),
        }
        for name, chosen in rows.items():
            sets.setdefault(name, []).append(chosen)
    return sets


def _as_many(made: int, real: int) -> str:
    """Name of the real training set that is as large as the synthetic one."""
    return "real" if made >= real else f"{made} real"


class _Pool:
    """Real and, after them, synthetic subjects, as the networks see them."""

    def __init__(
        self, cohorts: tuple[Cohort, ...], maps: tuple[MapSpec, ...], settings: NetworkSettings
    ) -> None:
        self.maps, self.dim = maps, settings.dim
        self.volumes: list[Array] = [v for cohort in cohorts for v in cohort.volumes]
        people = [c for cohort in cohorts for c in cohort.conditions]
        self.age = np.array([p.age for p in people], dtype=np.float32)
        self.male = np.array([p.sex == "M" for p in people], dtype=np.float32)
        # Of the real training subjects: the same slices whatever is learnt from or tested on.
        area = (cohorts[0].volumes[:, 0] > 0).mean(axis=(0, 1, 2))
        self.full = np.flatnonzero(area > _FULL * area.max())

    def images(self, volume: Array, which: Rows) -> Array:
        """What the network is shown of a volume: itself, or the slices `which` of it.

        A slice comes with its height as a further channel, -1 at the lowest, 1 at the highest.
        """
        if self.dim == "3d":
            return scaled(volume, self.maps)[None]
        slices = np.moveaxis(scaled(volume[..., which], self.maps), -1, 0)
        height = np.interp(which, [self.full[0], self.full[-1]], [-1, 1]).astype(np.float32)
        plane = np.broadcast_to(height[:, None, None, None], (len(which), 1, *slices.shape[2:]))
        return np.concatenate([slices, plane], axis=1)


def scaled(volume: Array, maps: tuple[MapSpec, ...]) -> Array:
    """(maps, X, Y, Z) in physical units -> each map divided by its fixed scale.

    What is impossible is clipped, so that one bad voxel does not decide.
    """
    pairs = zip(volume, maps, strict=True)
    return np.stack([m.to_network(m.clip(np.nan_to_num(v, nan=0.0))) for v, m in pairs])


def _learn(
    pool: _Pool, rows: Rows, test: Cohort, steps: int, settings: NetworkSettings, seed: int
) -> _Said:
    """Train one network on these rows of the pool and ask it about the test subjects."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

    mean, sd = float(pool.age[rows].mean()), float(max(pool.age[rows].std(), 1e-3))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = _network(settings, len(pool.maps), seed).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    for step, (images, who) in enumerate(_batches(pool, rows, steps, settings, seed)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        out = network(torch.from_numpy(images).to(device))
        age = torch.from_numpy((pool.age[who] - mean) / sd).to(device)
        male = torch.from_numpy(pool.male[who]).to(device)
        loss = mse_loss(out[:, 0], age) + binary_cross_entropy_with_logits(out[:, 1], male)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()
    told = []
    with torch.inference_mode():
        for volume in test.volumes:
            images = pool.images(volume, pool.full)
            told.append(network(torch.from_numpy(images).to(device)).mean(dim=0).tolist())
    age_of, male_of = np.array(told).T
    return _Said(mean + sd * age_of, male_of)


def _batches(
    pool: _Pool, rows: Rows, steps: int, settings: NetworkSettings, seed: int
) -> Iterator[tuple[Array, Rows]]:
    """Images and the pool's row of each, over all rows again and again in random order.

    Every other volume is mirrored at the midline: left and right tell neither age nor sex.
    """
    rng = np.random.default_rng((seed, 2))
    queue = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(queue) < settings.batch:
            queue = np.concatenate([queue, rng.permutation(rows)])
        taken, queue = queue[: settings.batch], queue[settings.batch :]
        images = []
        for row in taken:
            volume = pool.volumes[row] if rng.random() < 0.5 else pool.volumes[row][:, ::-1]
            which = rng.choice(pool.full, settings.slices) if pool.dim == "2d" else pool.full
            images.append(pool.images(volume, which))
        who = np.repeat(taken, [len(i) for i in images])
        yield np.ascontiguousarray(np.concatenate(images)), who


def _network(settings: NetworkSettings, maps: int, seed: int) -> torch.nn.Module:
    """Strided convolutions with two outputs: standardised age, log odds of being male.

    Group normalisation forgets how bright a volume is as a whole, which age changes most; so the
    first level is not normalised, and the averages of every level go to the outputs. People
    differ little in them: batch normalisation brings that to size (without it, men with a bright
    spot were not told from women in 300 steps).
    """
    import torch
    from torch import nn

    channels = settings.channels or CHANNELS[settings.dim]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = nn.Conv2d if settings.dim == "2d" else nn.Conv3d
            self.levels = nn.ModuleList()
            width = maps + (settings.dim == "2d")
            for i, wider in enumerate(channels):
                norm = nn.GroupNorm(math.gcd(4, width), width) if i else nn.Identity()
                layer = conv(width, wider, kernel_size=3, stride=2, padding=1)
                self.levels.append(nn.Sequential(norm, layer, nn.SiLU()))
                width = wider
            self.out = nn.Sequential(nn.BatchNorm1d(sum(channels)), nn.Linear(sum(channels), 2))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            averages = []
            for level in self.levels:
                images = level(images)
                averages.append(images.flatten(2).mean(dim=2))
            out: torch.Tensor = self.out(torch.cat(averages, dim=1))
            return out

    # The caller's random numbers stay as they are.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network()


class _Draws:
    """Bootstrap weights of seeds and test subjects, the same for every number of a comparison."""

    def __init__(self, test: Cohort, settings: NetworkSettings) -> None:
        rng = np.random.default_rng((settings.seed, 3))

        def weights(n: int) -> Table:
            # The first row is the sample itself.
            even = np.full((1, n), 1 / max(n, 1))
            return np.concatenate([even, rng.multinomial(n, even[0], settings.draws) / n])

        self.age = np.array([c.age for c in test.conditions])
        self.male = np.array([c.sex == "M" for c in test.conditions])
        self.seeds = weights(settings.seeds)
        self.subjects = np.zeros((settings.draws + 1, len(test)))
        for rows in (np.flatnonzero(self.male), np.flatnonzero(~self.male)):
            if len(rows):
                self.subjects[:, rows] = weights(len(rows)) * len(rows) / len(test)

    def age_error(self, age: Table) -> Table:
        """Mean absolute error of (seeds, subjects) ages; (1 + draws,), the value first."""
        wrong = np.abs(age - self.age)
        error: Table = ((self.seeds @ wrong) * self.subjects).sum(axis=1)
        return error

    def sex_auc(self, male: Table) -> Table:
        """Area under the ROC curve of (seeds, subjects) log odds; (1 + draws,)."""
        men, women = (w / w.sum(axis=1, keepdims=True) for w in self._by_sex(self.subjects))
        total = np.zeros(len(self.seeds))
        for weight, said in zip(self.seeds.T, male, strict=True):
            of_men, of_women = self._by_sex(said[None])
            gap = of_men.T - of_women
            total += weight * ((men @ ((gap > 0) + 0.5 * (gap == 0))) * women).sum(axis=1)
        return np.minimum(total, 1.0)

    def _by_sex(self, columns: Table) -> tuple[Table, Table]:
        return columns[:, self.male], columns[:, ~self.male]


def _findings(
    said: dict[str, list[_Said]], alike: str, train: Cohort, test: Cohort, settings: NetworkSettings
) -> tuple[Finding, ...]:
    draws = _Draws(test, settings)
    ages = {name: draws.age_error(np.array([one.age for one in s])) for name, s in said.items()}
    guess = np.full((settings.seeds, len(test)), np.mean([c.age for c in train.conditions]))
    ages["age of the average training subject"] = draws.age_error(guess)
    what = f"read by a {settings.dim.upper()} network"
    name = f"network_{settings.dim}"
    findings = _pair(ages, alike, f"{name}_age", f"Age {what}, error", "years")
    if 0 < draws.male.sum() < len(test):
        sexes = {name: draws.sex_auc(np.array([one.male for one in s])) for name, s in said.items()}
        findings += _pair(sexes, alike, f"{name}_sex", f"Sex {what}, area under ROC", "")
    return findings


def _pair(
    scores: dict[str, Table], alike: str, name: str, label: str, unit: str
) -> tuple[Finding, ...]:
    """Two differences between training sets; each score is the value, then its draws."""
    details = {k: _interval(v) for k, v in scores.items()}
    swap = _interval(scores["synthetic"] - scores[alike])
    add = _interval(scores["real + synthetic"] - scores["real"])
    return (
        Finding(f"{name}_synthetic", f"{label}: trained on synthetic less trained on as many real",
                unit, *swap, details=details),
        Finding(f"{name}_added", f"{label}: trained on real + synthetic less on real alone",
                unit, *add, details=details),
    )  # fmt: skip


def _interval(scores: Table) -> tuple[float, float, float]:
    low, high = np.quantile(scores[1:], [0.025, 0.975])
    return float(scores[0]), float(low), float(high)
