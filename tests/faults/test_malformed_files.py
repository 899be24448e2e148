"""A sample of malformed inputs of every door; see `malformed_files`."""

import file_doors
import malformed_files
import pytest

# In `make test` and in `make test-slow`; config fields have cases of their own.
FEW, MANY = 180, 1500


@pytest.mark.parametrize("name", file_doors.DOORS)
def test_a_door_reads_what_is_whole(name, tmp_path):
    door = file_doors.DOORS[name]
    door.write(tmp_path)
    outcome = malformed_files.opened(door, tmp_path, "nothing")
    assert (outcome.ended, outcome.defect) == ("read", ""), outcome


@pytest.mark.parametrize(("name", "count"), malformed_files.shares(FEW).items())
def test_a_malformed_file_ends_in_one_line(name, count):
    check(name, count)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), malformed_files.shares(MANY).items())
def test_many_malformed_files_end_in_one_line(name, count):
    check(name, count, first=malformed_files.shares(FEW)[name])


def check(name, count, first=0):
    outcomes = []
    malformed_files.run({name: count}, first=first, tick=outcomes.append)
    assert [o for o in outcomes if o.defect] == []
    assert len(outcomes) == count
    # The damage reaches what is read.
    assert count < 4 or any(o.ended == "refused" for o in outcomes)
