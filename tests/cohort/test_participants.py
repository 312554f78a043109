"""Tables of labs, as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort import derivatives, participants
from cohort.participants import Demographics, find_table, join_tables, read_table
from contracts.errors import UserError


def _table(folder: Path, text: str, name: str = "participants.tsv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("participants.tsv", "participant_id\tage\tsex\nsub-CC110033\t24\tM\n"),
        # CamCAN's columns
        (
            "participants.tsv",
            "participant_id\tage\thand\tgender_code\ttiv_cubicmm\tgender_text\n"
            "sub-CC110033\t24\t90\t1\t1500000\tMALE\n",
        ),
        ("participants.tsv", "participant_id\tage\tgender_code\nsub-CC110033\t24\t1\n"),
        ("standard_data.csv", "CCID,Age,Sex,Hand\nCC110033,24,MALE,90\n"),
        ("participants.csv", "\ufeffSubject;Age;Gender\nCC110033;24.0;m\n"),
    ],
)
def test_the_same_person_in_every_table(tmp_path: Path, name: str, text: str) -> None:
    table = read_table(_table(tmp_path, text, name))
    (person,) = join_tables(["sub-CC110033"], [table]).participants
    assert (person.id, person.age, person.sex) == ("sub-CC110033", 24, "M")
    assert (person.group, person.site) == ("base", "n/a")


def test_group_site_and_family_are_read(tmp_path: Path) -> None:
    text = (
        "participant_id\tage\tsex\tgroup\tsite\tfamily\n"
        "sub-1\t30\tF\ttarget\tB\tf1\nsub-2\t30\tF\tn/a\tn/a\tn/a\n"
    )
    table = join_tables(["sub-2", "sub-1"], [read_table(_table(tmp_path, text))])
    first, second = table.participants
    assert (first.id, first.group, first.site) == ("sub-1", "target", "B")
    assert (second.group, second.site) == ("base", "n/a")
    assert table.families == {"sub-1": "f1"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("n/a\tF\tbase", "no age"),
        ("\tF\tbase", "no age"),
        ("30\tn/a\tbase", "no sex"),
        ("thirty\tF\tbase", "age 'thirty'"),
        ("300\tF\tbase", "out of range"),
        ("30\tO\tbase", "unknown sex 'O'"),
        ("30\t1\tbase", "unknown sex '1'"),
        ("30\tF\tpatient", "group 'patient' is not base or target"),
    ],
)
def test_who_cannot_be_used_is_left_out_with_a_reason(
    tmp_path: Path, row: str, reason: str
) -> None:
    text = f"participant_id\tage\tsex\tgroup\nsub-1\t{row}\nsub-2\t40\tM\tbase\n"
    table = join_tables(["sub-1", "sub-2", "sub-3"], [read_table(_table(tmp_path, text))])
    assert [p.id for p in table.participants] == ["sub-2"]
    assert reason in table.left_out["sub-1"]
    assert "no age" in table.left_out["sub-3"]


def test_an_earlier_table_overrules_and_a_later_one_fills_gaps() -> None:
    lab = {"sub-1": Demographics(age="30")}
    header = {"sub-1": Demographics(age="31", sex="F")}
    (person,) = join_tables(["sub-1"], [lab, header]).participants
    assert (person.age, person.sex) == (30, "F")


def test_ages_of_sessions_overrule_the_age_at_enrolment(tmp_path: Path) -> None:
    people = read_table(_table(tmp_path, "participant_id\tage\tsex\nsub-1\t30\tF\n"))
    (tmp_path / "sub-1").mkdir()
    _table(tmp_path / "sub-1", "session_id\tage\nses-b\t32.5\n", "sub-1_sessions.tsv")
    table = join_tables(
        ["sub-1_ses-a", "sub-1_ses-b"], [participants.read_sessions(tmp_path), people]
    )
    assert [p.age for p in table.participants] == [30, 32.5]


def test_nearest_table_is_found(tmp_path: Path) -> None:
    source = tmp_path / "bids" / "derivatives" / "maps"
    source.mkdir(parents=True)
    far = _table(tmp_path / "bids", "participant_id\n")
    assert find_table(source) == far.resolve()
    near = _table(source, "participant_id\n")
    assert find_table(source) == near.resolve()


def test_a_table_without_ids_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a column participant_id"):
        read_table(_table(tmp_path, "name\tage\nx\t30\n"))


def test_families_survive_the_way_through_derivatives(tmp_path: Path) -> None:
    people = [derivatives.Participant(f"sub-{i}", 30, "F", "base", "n/a") for i in "123"]
    derivatives.write_participants(tmp_path, people)
    participants.add_families(tmp_path / "participants.tsv", {"sub-1": "f", "sub-3": "f"})
    assert participants.read_families(tmp_path) == {"sub-1": "f", "sub-3": "f"}
    assert derivatives.read_participants(tmp_path) == people
