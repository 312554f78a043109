"""A whole synthetic cohort on the command line, ready to be shared and audited.

`python -m serving.cohort --dim 3d --count 100 --output synthetic`
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.console import command, progress, say
from contracts.errors import UserError

if TYPE_CHECKING:
    from cohort.derivatives import Participant
    from serving.messages import SampleRequest
    from serving.sampling import Model

# A new stream of volumes; the evaluation's samples start elsewhere.
_SEED = 1_000_000


@command()
@click.option("--dim", type=click.Choice(["2d", "3d"]), default="3d", show_default=True)
@click.option("--count", type=click.IntRange(min=1), help="Volumes, over all ages seen.")
@click.option("--people", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Instead of --count: a table (.tsv) with participant_id, age, sex.")  # fmt: skip
@click.option("--seed", default=_SEED, show_default=True, help="Of the first; they count up.")
@click.option("--steps", type=int, help="Steps of the sampler  [default: 16]")
@click.option("--site", help="Of generators that were told sites  [default: their average]")
@click.option("--adapter", help="Alias or version of a registered one  [default: the champion's]")
@click.option("--strength", type=float, help="Of the adapter; 0: the base  [default: 1]")
@click.option("--model", type=click.Path(path_type=Path), help="Folder  [default: champion]")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
def main(
    dim: str,
    count: int | None,
    people: Path | None,
    seed: int,
    steps: int | None,
    site: str | None,
    adapter: str | None,
    strength: float | None,
    model: Path | None,
    output: Path,
) -> None:
    """Make a BIDS derivatives folder of synthetic FA and MD; run again, it goes on."""
    from serving.sampling import adapted_model, champion_model, folder_model

    if (count is None) == (people is None):
        raise UserError("expected either --count or --people")
    found = champion_model("2d" if dim == "2d" else "3d") if model is None else folder_model(model)
    found = adapted_model(found, adapter, 1.0 if strength is None else strength)
    if count is not None:
        coverage = found.generator.coverage
        asked = spread(count, coverage.sites.get(site or "", coverage).well_covered)
    else:
        assert people is not None
        asked = read_people(people)
    options = {"steps": steps, "site": site, "adapter": adapter, "strength": strength}
    given = {name: value for name, value in options.items() if value is not None}
    write(found, asked, output, seed, given)
    say(f"{len(asked)} synthetic subjects in {output}: judge them with")
    click.echo(f"python -m evaluation audit {output} --train REAL_TRAIN --test REAL_TEST")


def spread(count: int, age_range: tuple[float, float]) -> list[Participant]:
    """Subjects of both sexes whose ages fill a range evenly."""
    from cohort.derivatives import Participant

    low, high = age_range
    ages = [round(low + (high - low) * (i + 0.5) / count, 1) for i in range(count)]
    return [
        Participant(f"sub-synth{i + 1:04d}", age, "FM"[i % 2], "base", "synthetic")
        for i, age in enumerate(ages)
    ]


def read_people(path: Path) -> list[Participant]:
    """Subjects to make, from a table.

    Raises
    ------
    UserError : if a column is missing, a row cannot be read or an id comes twice.
    """
    from cohort.derivatives import Participant
    from contracts.condition import condition

    out: dict[str, Participant] = {}
    with path.open(newline="") as stream:
        for line, row in enumerate(csv.DictReader(stream, delimiter="\t"), start=2):
            try:
                who = condition(float(row["age"]), row["sex"])
                name = "sub-" + row["participant_id"].removeprefix("sub-")
            except (KeyError, TypeError, ValueError, AttributeError):
                raise UserError(
                    f"{path} line {line}: expected participant_id, an age in years and a sex "
                    f"(F or M), found {dict(row)}"
                ) from None
            if not name.removeprefix("sub-").isalnum() or name in out:
                raise UserError(
                    f"{path} line {line}: expected an id of letters and digits that comes once, "
                    f"found '{row['participant_id']}'"
                )
            out[name] = Participant(name, who.age, who.sex, "base", "synthetic")
    if not out:
        raise UserError(f"{path}: no rows")
    return list(out.values())


def write(
    model: Model, people: Sequence[Participant], root: Path, seed: int, options: dict[str, Any]
) -> None:
    """Write the subjects that `root` does not hold yet, as a derivatives folder.

    Parameters
    ----------
    seed : of the first subject; the seeds of the others count up from it.
    model : with the adapter that the options name.
    options : further fields of each request, such as ``steps`` and ``site``.

    Raises
    ------
    UserError : if a request is out of range, or `root` holds subjects made otherwise.
    """
    import numpy as np

    from cohort import derivatives
    from cohort.stage_output import write_whole
    from contracts import bids, volume
    from contracts.maps import map_spec
    from serving.messages import sample_request
    from serving.sampling import sample_maps

    generator = model.generator
    space, maps = generator.space, [spec.name for spec in generator.maps]
    requests = [
        sample_request(
            {"dim": generator.dim, "age": p.age, "sex": p.sex, "seed": seed + i} | options
        )
        for i, p in enumerate(people)
    ]
    derivatives.write_description(
        root, "Synthetic diffusion tensor maps", True, f"{model.name} {model.version}"
    )
    derivatives.write_space(root, space)
    derivatives.write_participants(root, people)
    warnings: set[str] = set()
    pairs = list(zip(people, requests, strict=True))
    for person, request in progress(pairs, len(pairs), "sampling"):
        folder = bids.derivatives_folder(root, person.id)
        files = [folder / bids.map_name(person.id, space, map_spec(name)) for name in maps]
        records = [bids.sidecar(file) for file in files]
        if all(record.exists() for record in records):
            _check(records[0], model, request)
            continue
        samples = sample_maps(model, request, maps)
        mask = np.zeros(space.shape, dtype=np.bool_)
        for file, made in zip(files, samples, strict=True):
            made.save(file)
            mask |= volume.read_on(file, space) > 0
            warnings |= set(made.warnings)
        volume.write(folder / bids.mask_name(person.id, space), mask, space)
        # The records are written last, so that a subject with its records is complete.
        for record, made in zip(records, samples, strict=True):
            write_whole(record, json.dumps(made.recipe, indent=2) + "\n")
    for warning in sorted(warnings):
        say(f"warning: {warning}")


def _check(record: Path, model: Model, request: SampleRequest) -> None:
    recipe = json.loads(record.read_text())
    found = recipe["ModelDigest"], recipe["Seeds"], recipe["Steps"], recipe.get("Site")
    asked = model.digest, request.seeds, request.steps, request.site
    if found != asked:
        told = [
            f"{made} with seeds {seeds}, {steps} steps, site {site}"
            for made, seeds, steps, site in (found, asked)
        ]
        raise UserError(
            f"{record.parent} was made by {told[0]}, not by {told[1]}: name an empty folder"
        )


if __name__ == "__main__":
    main()
