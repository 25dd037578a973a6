"""Odd inputs: each gets one clear line, or what it plainly means. The table is in `odd_inputs`."""

import pytest
from odd_inputs.table import TABLE
from odd_inputs.row import AS_WANTED, outcome_of


def parameters():
    for kind, rows in TABLE.items():
        for row in rows:
            marks = [pytest.mark.xfail(reason=row.fails, strict=True)] if row.fails else []
            marks += [pytest.mark.soak] if row.soak else []
            yield pytest.param(row, marks=marks, id=f"{kind}: {row.name}")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("row", parameters())
def test_an_odd_input_gets_what_it_should(row, tmp_path):
    outcome, said = outcome_of(row, tmp_path)
    assert outcome == AS_WANTED, f"{outcome}: {said}"


def test_each_row_has_a_name_of_its_own():
    for kind, rows in TABLE.items():
        names = [row.name for row in rows]
        assert len(set(names)) == len(names), kind
    assert sum(map(len, TABLE.values())) >= 200
