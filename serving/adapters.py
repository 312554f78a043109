"""The registered adapters of a base that is loaded, by name."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from contracts.errors import UserError

if TYPE_CHECKING:
    from models.adapters.adapted import AdaptedGenerator
    from models.generator import Generator

# Each holds weights of its own beside those of the base.
_KEPT = 8


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters of one base, each fetched and fitted when it is first asked for.

    A name means the same version for as long as its adapter is kept, until the program ends or
    eight others were asked for since.

    Parameters
    ----------
    base : which is loaded once, for all of them.
    """

    base: Generator
    _kept: OrderedDict[str, tuple[str, AdaptedGenerator]] = field(default_factory=OrderedDict)

    def get(self, name: str) -> tuple[str, AdaptedGenerator]:
        """The number of an adapted version, and its generator as it was trained.

        Parameters
        ----------
        name : an alias, such as ``target``, or the version's number.

        Raises
        ------
        UserError : if there is no such adapter, or it was made for another base.
        """
        from models.adapters import adapted
        from registry import champion

        if name not in self._kept:
            found = champion.fetch_adapter(self.base.dim, name)
            generator = adapted.load(found.folder, self.base)
            if not isinstance(generator, adapted.AdaptedGenerator):
                raise UserError(f"adapter '{name}': {found.folder} holds no adapter")
            self._kept[name] = found.version, generator
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]
