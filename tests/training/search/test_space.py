"""What a trial may choose: conditional on the method, and every choice can be put in words back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest

from contracts.errors import UserError
from models.adapters.method import method, methods
from tests.training.search.tiny import ADAPT, BLOCKS, SPACE, settings, space
from training.search.run import search
from training.search.settings import SpaceSettings
from training.search.space import Space, name_of
from training.settings import AdaptSettings

EVERY = SpaceSettings(methods=dict.fromkeys(methods(), None), steps=(10, 20), ema=(0.9, 0.99))


def drawn(chosen: Space, number: int = 60) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Parameters of Optuna and what they choose."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(number):
        trial = study.ask()
        config = chosen.suggest(trial)
        found.append((trial.params, config))
    return found


@pytest.mark.parametrize("blocks", ["all", "each", "top"])
def test_every_choice_is_a_setting_of_adapt_and_leads_back_to_its_parameters(blocks: Any) -> None:
    chosen = space(replace(EVERY, blocks=blocks))
    seen = set()
    for params, config in drawn(chosen):
        made = chosen.settings(config)
        assert method(made.method, made.settings).name == config["method"]
        seen.add(config["method"])
        if config.get("blocks") is not None and blocks == "top":
            count = params["blocks.top"]
            assert made.blocks == (("*",) if count == len(BLOCKS) else BLOCKS[:count])
        fixed = optuna.trial.FixedTrial(chosen.params(config))
        assert chosen.suggest(fixed) == config
    assert seen == set(methods())


def test_a_method_has_its_own_parameters_alone() -> None:
    for params, config in drawn(space()):
        own = {name.partition(".")[0] for name in params if "." in name}
        assert own <= {config["method"]}
        if config["method"] == "none":
            assert set(params) == {"method", "site_gain", "mean_shift"}
        if config["method"] == "lora":
            assert config["settings"]["rank"] in (2, 4)
            assert 1e-4 <= config["learning_rate"] <= 1e-1


def test_ranges_that_are_not_given_are_those_of_the_method() -> None:
    chosen = space(EVERY)
    assert chosen.choices("lora") == {"rank": methods()["lora"].choices["rank"]}
    assert chosen.rates("svdiff") == methods()["svdiff"].learning_rates
    assert space().choices("lora") == {"rank": (2, 4)}


def test_the_hand_picked_come_first_those_of_params_yaml_before_all() -> None:
    found = space().hand_picked()
    assert [config["method"] for config in found] == ["lora", "none", "full", "none"]
    assert space().settings(found[0]) == replace(ADAPT, learning_rate=3e-3)
    assert found[-1] == {"method": "none", "settings": {}, "mean_shift": False, "site_gain": True}
    assert found[2]["learning_rate"] == methods()["full"].learning_rate


def test_no_block_at_all_is_the_method_that_trains_nothing() -> None:
    chosen = space(replace(SPACE, blocks="each"))
    params = {"method": "full", "site_gain": True, "mean_shift": False, "steps": 10, "ema": 0.99}
    params |= {"full.learning_rate": 1e-3, **{f"blocks.{b}": False for b in BLOCKS}}
    config = chosen.suggest(optuna.trial.FixedTrial(params))
    assert config == {"method": "none", "settings": {}, "site_gain": True, "mean_shift": False}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": (10,)}, r"tune\.space\.steps is \[10\] and leaves out 20"),
        ({"methods": {"lora": {"rank": [2]}}}, r"lora\.rank is \[2\] and leaves out 4"),
        ({"methods": {"lora": {"learning_rate": [1e-5, 1e-4]}}}, "leaves out 0.003"),
        ({"methods": {"full": {}}}, r"methods is \['full'\] and leaves out lora"),
        ({"methods": {"lorax": {}}}, "expected some of .*, found lorax"),
        ({"methods": {"lora": {"rnk": [2]}}}, "lora.rnk: expected one of rank"),
        ({"methods": {"lora": {"rank": 4}}}, "lora.rank: expected a list"),
        ({"methods": {"lora": {"learning_rate": [1.0]}}}, "expected .low, high."),
        ({"methods": {"lora": [4]}}, "expected choices or"),
    ],
)
def test_choices_that_cannot_be_are_told(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        space(replace(SPACE, **changed)).hand_picked()


def test_the_top_of_the_order_cannot_be_other_blocks() -> None:
    adapt = AdaptSettings(settings={"rank": 4}, steps=20, blocks=("middle.*",))
    with pytest.raises(UserError, match="search with `each`"):
        Space(replace(SPACE, blocks="top"), adapt, BLOCKS).hand_picked()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"objectives": ("trainable",)}, "first objective"),
        ({"objectives": ("regional_distance", "size")}, "found size"),
        ({"limits": {"copies": 0.1}}, "found copies"),
        ({"limits": {"copy_share": -1}}, "numbers of at least 0"),
        ({"stop_early": True}, "needs one objective"),
        ({"samples": 1}, "samples"),
        ({"trials": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_are_told(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changed)


def test_names_tell_trials_apart_by_what_was_chosen() -> None:
    first = {"method": "lora", "settings": {"rank": 4}, "learning_rate": 0.00312, "steps": 60}
    first |= {"ema": 0.99, "blocks": ["*"], "site_gain": True, "mean_shift": True}
    assert name_of(first) == "lora rank 4 rate 0.00312 60 steps"
    other = first | {"blocks": ["out", "conv_in"], "mean_shift": False, "ema": 0.9}
    assert name_of(other) == "lora rank 4 rate 0.00312 60 steps ema 0.9 2 blocks no shift"


def test_a_search_refuses_the_address_of_rays_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune would send the searcher to another process, where nothing of it arrives."""
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UserError, match="host:port, in RAY_ADDRESS"):
        search(settings())
