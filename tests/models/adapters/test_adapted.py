"""Adapted generators: base and adapters, in memory and on disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.condition import Condition
from contracts.errors import UserError
from models.adapters.adapted import AdaptedGenerator, adapted, base_digest, fit, load
from models.adapters.adapter import Adapter
from models.adapters.method import method, methods
from models.generator import Generator
from tests.models.adapters.weights import adapter_file, disturb, gap, weights
from tests.models.tiny import tiny_generator

WHO = ([Condition(40, "F")], [11], 2)
TRAINED = [name for name, kind in methods().items() if kind.trains_something]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with an adapted generator, beside its base."""
    base = tiny_generator("3d")
    base.save(tmp_path / "models/base")
    made = adapted(base, [(adapter_file(base), 1.0)]).with_provenance({"run": "r1"})
    made.save(tmp_path / "models/adapted")
    return tmp_path / "models/adapted"


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_loaded_samples_as_what_was_trained_bit_for_bit(
    base: Generator, tmp_path: Path, name: str
) -> None:
    base.save(tmp_path / "base")
    trained = tiny_generator(base.dim)
    adapter = Adapter(trained.denoiser.network, method(name, {}))
    disturb(adapter)
    file = adapter_file(base, name)
    prior = base.prior.with_gain(file.gain).with_mean_shift(file.mean_shift)
    unmerged = Generator(base.config, prior, trained.denoiser).sample(*WHO)
    adapted(base, [(file, 1.0)]).save(tmp_path / "adapted")
    loaded = load(tmp_path / "adapted")
    np.testing.assert_array_equal(loaded.sample(*WHO), unmerged)
    assert not np.array_equal(unmerged, base.sample(*WHO))


def test_the_files_hold_nothing_of_the_base(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"generator.json", "adapter.safetensors"}
    assert base_digest(saved) == tiny_generator("3d").digest == base_digest(saved)
    assert base_digest(saved.with_name("base")) is None


def test_several_at_strengths_are_kept(saved: Path) -> None:
    base = tiny_generator("3d")
    files = [(adapter_file(base), 0.5), (adapter_file(base, "bitfit", 2), -1.5)]
    made = adapted(base, files).with_provenance({"run": "r2"})
    made.save(saved)
    found = load(saved)
    assert isinstance(found, AdaptedGenerator)
    assert [one.strength for one in found.adapters] == [0.5, -1.5]
    assert (found.digest, found.provenance) == (made.digest, {"run": "r2"})
    np.testing.assert_array_equal(found.sample(*WHO), made.sample(*WHO))


def test_the_base_is_found_beside_under_any_name(saved: Path) -> None:
    shutil.copytree(saved.with_name("base"), saved.with_name("another"))
    (saved.with_name("base") / "generator.json").write_text("{broken")
    assert load(saved).provenance == {"run": "r1"}


def test_a_missing_base_is_told(saved: Path) -> None:
    shutil.rmtree(saved.with_name("base"))
    with pytest.raises(UserError, match=rf"base {base_digest(saved)}.*no base.*dvc checkout"):
        load(saved)


def test_another_base_is_told(saved: Path) -> None:
    other = tiny_generator("3d", seed=5)
    other.save(saved.with_name("base"))
    expected = rf"base {base_digest(saved)}; found .*{other.digest} \(base\).*dvc repro"
    with pytest.raises(UserError, match=expected):
        load(saved)
    with pytest.raises(UserError, match=rf"this one is {other.digest}: load the base"):
        load(saved, other)


def test_another_adapter_file_is_told(saved: Path) -> None:
    base = tiny_generator("3d")
    adapter_file(base, seed=2).write(saved / "adapter.safetensors")
    with pytest.raises(UserError, match="not what was saved"):
        load(saved)
    (saved / "adapter.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read as an adapter"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "told"),
    [({"format": 99}, "format 99"), ({"adapters": {"../x": None}}, "cannot be read")],
    ids=str,
)
def test_a_description_that_cannot_be_used_is_told(
    saved: Path, change: dict[str, object], told: str
) -> None:
    path = saved / "generator.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=told):
        load(saved)


def test_a_whole_generator_is_read_too(saved: Path) -> None:
    base = load(saved.with_name("base"))
    assert type(base) is Generator
    with pytest.raises(UserError, match=r"models\.adapters\.adapted\.load"):
        Generator.load(saved)
    with pytest.raises(UserError, match="no generator in"):
        load(saved / "nowhere")


def test_a_base_is_loaded_once_for_many(saved: Path) -> None:
    base = tiny_generator("3d")
    found = load(saved, base)
    assert isinstance(found, AdaptedGenerator)
    assert found.base is base
    shared = {id(buffer) for buffer in base.denoiser.buffers()}
    assert {id(buffer) for buffer in found.denoiser.buffers()} == shared
    own = {p.data_ptr() for p in found.denoiser.parameters()}
    assert not own & {p.data_ptr() for p in base.denoiser.parameters()}


def test_adapters_are_swapped_on_a_base_and_leave_it_as_it_is() -> None:
    base = tiny_generator("3d")
    before, digest = base.sample(*WHO), base.digest
    one, other = (fit(base, adapter_file(base, seed=seed)) for seed in (1, 2))
    first = AdaptedGenerator([one])
    expected, swapped = first.sample(*WHO), AdaptedGenerator([other]).sample(*WHO)
    assert np.abs(swapped - expected).max() > 1e-3
    np.testing.assert_array_equal(AdaptedGenerator([one]).sample(*WHO), expected)
    np.testing.assert_array_equal(AdaptedGenerator([one.at(0)]).sample(*WHO), before)
    assert base.digest == digest
    assert all(p.requires_grad for p in base.denoiser.network.parameters())


def test_a_base_that_recomputes_activations_can_be_adapted() -> None:
    base = tiny_generator("3d")
    one = fit(base, adapter_file(base))
    expected = AdaptedGenerator([one]).sample(*WHO)
    base.denoiser.network.recompute(True)
    np.testing.assert_array_equal(AdaptedGenerator([one]).sample(*WHO), expected)


def test_the_strength_multiplies_all_that_an_adapter_changes() -> None:
    base = tiny_generator("3d")
    made = adapted(base, [(adapter_file(base), 1.0)])
    double = made.at(2)
    assert double.prior.mean_shift is not None
    # The file has half precision.
    np.testing.assert_allclose(double.prior.mean_shift, 0.2, rtol=1e-3)
    np.testing.assert_allclose(double.prior.site_gain, np.array([1.21, 0.9025, 1]), rtol=1e-6)
    network = base.denoiser.network
    before, once = weights(network), weights(made.denoiser.network)
    twice = {name: before[name] + 2 * (once[name] - before[name]) for name in before}
    assert gap(weights(double.denoiser.network), twice) < 1e-5
    np.testing.assert_array_equal(double.at(0.5).sample(*WHO), made.sample(*WHO))


def test_merged_it_needs_no_base(saved: Path) -> None:
    made = load(saved)
    assert isinstance(made, AdaptedGenerator)
    made.merged().save(saved.with_name("merged"))
    shutil.rmtree(saved.with_name("base"))
    alone = Generator.load(saved.with_name("merged"))
    np.testing.assert_array_equal(alone.sample(*WHO), made.sample(*WHO))
    assert alone.provenance == made.provenance


def test_the_digest_names_what_shapes_a_sample(saved: Path) -> None:
    base, file = tiny_generator("3d"), adapter_file(tiny_generator("3d"))
    made = adapted(base, [(file, 1.0)])
    scored = replace(file, scores={"val_regional_distance": 0.5})
    assert adapted(base, [(scored, 1)]).with_provenance({"a": 1}).digest == made.digest
    others = [
        made.at(0.5),
        adapted(base, [(adapter_file(base, seed=2), 1.0)]),
        adapted(base, [(replace(file, gain=2 * file.gain), 1.0)]),
        adapted(base, [(file, 1.0), (file, 1.0)]),
        base,
    ]
    assert len({one.digest for one in [made, *others]}) == len(others) + 1


def test_the_coverage_is_that_of_the_adapter_in_use() -> None:
    base = tiny_generator("3d")
    coverage = type(base.coverage).of([Condition(70, "M")])
    file = replace(adapter_file(base), coverage=coverage)
    assert adapted(base, [(file, 0.5)]).coverage == coverage
    assert adapted(base, [(file, 0)]).coverage == base.coverage


def test_adapters_of_two_bases_do_not_mix() -> None:
    one, other = tiny_generator("3d"), tiny_generator("3d")
    parts = [fit(base, adapter_file(base)) for base in (one, other)]
    with pytest.raises(ValueError, match="fitted to one base"):
        AdaptedGenerator(parts)
