"""The stage `template`: the group template, and every subject registered to it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import closure, paths
from contracts.console import command, progress, say

if TYPE_CHECKING:
    from cohort.group_template import GroupTemplate
    from cohort.regression import Array
    from cohort.subjects import SubjectFiles
    from cohort.template_estimator import Volumes
    from cohort.template_files import TemplateFiles
    from cohort.template_qc import RegistrationQuality, RunningMoments

_TABLE, _PICTURE = "registration.tsv", "qc.png"


def make_group_template(
    derivatives: Path = paths.DERIVATIVES,
    split: Path = paths.SPLIT,
    out: Path = paths.TEMPLATE,
    work: Path = paths.WORK,
) -> None:
    """Makes the template from the training subjects of the base group and registers everyone.

    Parameters
    ----------
    out : folder that is written anew when all is done; see `cohort.template_files.TemplateFiles`.
    work : folder for what an interrupted call has finished.

    Raises
    ------
    UserError : if the split names no training subjects, or a volume cannot be read.
    """
    from cohort import channels
    from cohort.group_template import GroupTemplate, smoothing_sigma
    from cohort.stage_output import whole_folder
    from cohort.subjects import SubjectFiles
    from cohort.template_files import TemplateFiles
    from cohort.template_qc import RunningMoments, plot

    train = SubjectFiles.find(derivatives, split, "base", "train")
    encoded = train.encoded(work)
    reach = channels.possible_brain(channels.brain(volume) for volume in encoded)
    sigma = smoothing_sigma(train.space)
    kept = work / f"template-{train.digest}-{closure.digest('cohort.template')}"
    template, displacements = GroupTemplate.fit(encoded, reach, train.conditions, sigma, kept)

    with whole_folder(out) as folder:
        files = TemplateFiles(folder, train.space)
        files.write_template(template, train.maps)
        before, after = RunningMoments(), RunningMoments()
        rows = _register(files, template, train, displacements, (before, after))
        plot(template, before, after, train.maps, folder / _PICTURE)
        others = [p.id for p in train.cohort.participants if p.id not in train.ids]
        if others:
            rows += _register(files, template, SubjectFiles.of(train.cohort, others))
        with (folder / _TABLE).open("w", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0].row()), delimiter="\t", lineterminator="\n")
            table.writeheader()
            table.writerows(row.row() for row in sorted(rows, key=lambda row: row.subject))
    shutil.rmtree(kept)
    say(f"{out}: a template of {len(train.ids)} subjects, {len(rows)} registered: see {_PICTURE}")


def _register(
    files: TemplateFiles,
    template: GroupTemplate,
    subjects: SubjectFiles,
    displacements: Volumes | None = None,
    spreads: tuple[RunningMoments, RunningMoments] | None = None,
) -> list[RegistrationQuality]:
    """Writes displacements and registered maps of subjects.

    Parameters
    ----------
    displacements : where they are known already.
    spreads : to which the maps are added, as they are and registered.
    """
    import torch

    from cohort import channels
    from cohort.interpolation import displaced, inverse_displacement
    from cohort.template_qc import RegistrationQuality
    from cohort.threads import each

    def one(i: int) -> tuple[RegistrationQuality, Array, Array]:
        subject, condition = subjects.ids[i], subjects.conditions[i]
        maps = subjects.cohort.load([subject], subjects.maps)
        encoded = channels.encode(maps, subjects.cohort.masks([subject]), subjects.maps)[0]
        if displacements is None:
            u = template.displacement(encoded, condition)
        else:
            u = displacements[i].copy()
        inverse = inverse_displacement(torch.from_numpy(u))
        registered: Array = displaced(torch.from_numpy(maps[0]), inverse).numpy()
        files.write_subject(subject, u, registered, subjects.maps)
        zoom = min(subjects.space.zooms)
        return RegistrationQuality.of(subject, template, encoded, u, zoom), maps[0], registered

    what = "register" if displacements is None else "write registered subjects"
    found = []
    for row, maps, registered in progress(each(one, len(subjects.ids)), len(subjects.ids), what):
        found.append(row)
        if spreads is not None:
            spreads[0].add(maps)
            spreads[1].add(registered)
    return found


@command()
def main() -> None:
    """Make the group template and register every subject, into data/template."""
    make_group_template()


if __name__ == "__main__":
    main()
