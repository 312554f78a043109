"""The search space: what a trial may choose, conditional on the method it chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from contracts.errors import UserError
from models.adapters.method import Method, methods
from training.search.settings import SpaceSettings
from training.settings import AdaptSettings

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

# Fields of `AdaptSettings`; what is left out is as in `adapt.<dim>`.
Config = dict[str, Any]
_RATE = "learning_rate"
_ALL = ("*",)


@dataclass(frozen=True, slots=True)
class Space:
    """What a trial may choose.

    Names of parameters are those of the settings; those of a method have its name in front, e.g.
    ``lora.rank``, so that the sampler never mixes two methods' values up.

    Parameters
    ----------
    given : section `tune.space`.
    adapt : section `adapt.<dim>`, the hand-picked settings.
    blocks : names of the network's blocks, in the order in which ``top`` takes them.
    """

    given: SpaceSettings
    adapt: AdaptSettings
    blocks: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, own in self.given.methods.items():
            if name not in methods():
                known = ", ".join(methods())
                raise UserError(f"tune.space.methods: expected some of {known}, found {name}")
            if own is not None and not isinstance(own, dict):
                raise UserError(f"tune.space.methods.{name}: expected choices or {{}}, found {own}")
            self._require_choices(methods()[name], own or {})

    def _require_choices(self, kind: type[Method], own: Mapping[str, Any]) -> None:
        names = [field.name for field in fields(kind)]
        for key, values in own.items():
            place = f"tune.space.methods.{kind.name}.{key}"
            if not isinstance(values, list) or not values:
                raise UserError(f"{place}: expected a list of values, found {values!r}")
            if key == _RATE:
                low, high = values if len(values) == 2 else (0, 0)
                if not 0 < low < high < 1:
                    raise UserError(f"{place}: expected [low, high] with 0 < low < high < 1")
            elif key not in names:
                known = ", ".join([*names, _RATE])
                raise UserError(f"{place}: expected one of {known}")

    def choices(self, method: str) -> dict[str, tuple[Any, ...]]:
        """Returns the values of each setting of a method that can be chosen."""
        own = self.given.methods[method] or {}
        found = {name: tuple(values) for name, values in methods()[method].choices.items()}
        return found | {k: tuple(v) for k, v in own.items() if k != _RATE}

    def rates(self, method: str) -> tuple[float, float]:
        """Returns the lowest and the highest learning rate of a method."""
        own = self.given.methods[method] or {}
        low, high = own.get(_RATE, methods()[method].learning_rates)
        return float(low), float(high)

    def suggest(self, trial: BaseTrial) -> Config:
        """Returns what a trial of Optuna chooses."""
        method = trial.suggest_categorical("method", list(self.given.methods))
        config: Config = {"method": method, "settings": {}}
        for name in ("site_gain", "mean_shift"):
            config[name] = trial.suggest_categorical(name, getattr(self.given, name))
        if not methods()[method].trains_something:
            return config
        for name, values in self.choices(method).items():
            config["settings"][name] = trial.suggest_categorical(f"{method}.{name}", values)
        rate = trial.suggest_float(f"{method}.{_RATE}", *self.rates(method), log=True)
        # More digits would only look exact, and these are the numbers that people copy.
        config[_RATE] = float(f"{rate:.3g}")
        config["steps"] = trial.suggest_categorical("steps", self.given.steps)
        config["ema"] = trial.suggest_categorical("ema", self.given.ema)
        if (chosen := self._suggest_blocks(trial)) is not None:
            config["blocks"] = list(_ALL) if set(chosen) == set(self.blocks) else list(chosen)
        if config.get("blocks") == []:  # nothing is trained: that is the method `none`
            kept = {name: config[name] for name in ("site_gain", "mean_shift")}
            return {"method": "none", "settings": {}, **kept}
        return config

    def _suggest_blocks(self, trial: BaseTrial) -> Sequence[str] | None:
        if self.given.blocks == "all":
            return None
        if self.given.blocks == "top":
            count = trial.suggest_int("blocks.top", 1, len(self.blocks), log=True)
            return self.blocks[:count]
        on = (False, True)
        return [b for b in self.blocks if trial.suggest_categorical(f"blocks.{b}", on)]

    def params(self, config: Config) -> dict[str, Any]:
        """Returns the parameters of Optuna that make a trial choose `config`.

        Raises
        ------
        UserError : naming the setting that is not among the choices.
        """
        method = config["method"]
        if method not in self.given.methods:
            raise UserError(_outside("methods", list(self.given.methods), method))
        found = {"method": method}
        found |= self._common(config, ("site_gain", "mean_shift"))
        if not methods()[method].trains_something:
            return found
        defaults = methods()[method]().settings()
        for name, values in self.choices(method).items():
            value = config["settings"].get(name, defaults[name])
            if value not in values:
                raise UserError(_outside(f"methods.{method}.{name}", list(values), value))
            found[f"{method}.{name}"] = value
        low, high = self.rates(method)
        if not low <= config[_RATE] <= high:
            raise UserError(_outside(f"methods.{method}.{_RATE}", [low, high], config[_RATE]))
        found[f"{method}.{_RATE}"] = config[_RATE]
        found |= self._common(config, ("steps", "ema"))
        patterns = config.get("blocks", self.adapt.blocks)
        chosen = [b for b in self.blocks if any(fnmatchcase(b, p) for p in patterns)]
        if self.given.blocks == "each":
            found |= {f"blocks.{b}": b in chosen for b in self.blocks}
        elif self.given.blocks == "top":
            if chosen != list(self.blocks[: len(chosen)]) or not chosen:
                raise UserError(
                    f"the blocks {', '.join(patterns)} are not the first of the order that "
                    "tune.space.blocks: top chooses from; search with `each`"
                )
            found["blocks.top"] = len(chosen)
        return found

    def _common(self, config: Config, names: Sequence[str]) -> dict[str, Any]:
        for name in names:
            if config[name] not in getattr(self.given, name):
                raise UserError(_outside(name, list(getattr(self.given, name)), config[name]))
        return {name: config[name] for name in names}

    def hand_picked(self) -> list[Config]:
        """Returns the settings to try first: those of `adapt.<dim>`, then each method's defaults,
        and the site's gain alone if trials may go without a shift of the mean.

        Raises
        ------
        UserError : if one of them is not among the choices.
        """
        own = self.adapt
        kinds = [own.method, *(name for name in self.given.methods if name != own.method)]
        found = []
        for name in kinds:
            chosen = own
            if name != own.method:
                chosen = replace(own, method=name, settings={}, learning_rate=None)
            config: Config = {"method": name, "settings": dict(chosen.settings)}
            config |= {"site_gain": own.site_gain, "mean_shift": own.mean_shift}
            if methods()[name].trains_something:
                config[_RATE] = chosen.learning_rate or methods()[name].learning_rate
                config |= {"steps": own.steps, "ema": own.ema}
                config |= {} if self.given.blocks == "all" else {"blocks": list(own.blocks)}
            found.append(config)
        if "none" in self.given.methods and False in self.given.mean_shift:
            gain = {"method": "none", "settings": {}, "mean_shift": False}
            found.append(gain | {"site_gain": own.site_gain})
        unlike = [config for i, config in enumerate(found) if config not in found[:i]]
        for config in unlike:
            self.params(config)
        return unlike

    def settings(self, config: Config) -> AdaptSettings:
        """Returns the settings of `adapt.<dim>` with what a trial chose in their place."""
        chosen = {**config, "blocks": tuple(config.get("blocks", self.adapt.blocks))}
        if config["method"] == self.adapt.method:
            chosen["settings"] = {**self.adapt.settings, **config["settings"]}
        return replace(self.adapt, **{_RATE: None, **chosen})


def _outside(name: str, choices: list[Any], value: Any) -> str:
    return (
        f"tune.space.{name} is {choices} and leaves out {value}, a value of the hand-picked "
        "settings that the search starts from; widen it"
    )


def name_of(config: Config) -> str:
    """Returns a trial's choices in a few words, e.g. ``lora rank 4 rate 0.003 120 steps``."""
    parts = [config["method"], *(f"{k} {v}" for k, v in config["settings"].items())]
    if _RATE in config:
        parts += [f"rate {config[_RATE]:g}", f"{config['steps']} steps"]
        parts += [f"ema {config['ema']:g}"] if config["ema"] != AdaptSettings().ema else []
    blocks = config.get("blocks", list(_ALL))
    if blocks != list(_ALL):
        parts.append(f"{len(blocks)} blocks" if len(blocks) > 1 else blocks[0])
    parts += [] if config["mean_shift"] else ["no shift"]
    parts += [] if config["site_gain"] else ["no gain"]
    return " ".join(parts)
