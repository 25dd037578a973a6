import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from raysd.errors import UserError
from raysd.sweep.sweep import trial_error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (RayTaskError("f", "Traceback\n  File x\nValueError: bad", ValueError("bad\nsecond")), "ValueError: bad; "),
        (ActorDiedError(), "ActorDiedError: The actor died unexpectedly"),
        (RuntimeError("no\nmore"), "RuntimeError: no; "),
    ],
)
def test_a_trial_that_fails_at_each_try_ends_the_sweep_in_one_line(error, why):
    found = trial_error("0123", error)
    assert f"at all of 9 tries: {why}" in str(found) and "\n" not in str(found) and found.field == "sweep"


def test_what_the_user_must_mend_stays_as_it_is():
    own = UserError("x", 1, "mend it")
    assert trial_error("0123", RayTaskError("f", "Traceback", own)) is own
