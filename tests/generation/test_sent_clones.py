"""Jobs that are sent by reference: an actor fetches each once and keeps the last few."""

from plans import plan_of

from raysd.clone.clone import Clone
from raysd.generation import sent_clones
from raysd.generation.sent_clones import KeptClones, SentClone
from raysd.storage.location import Location


class Reference:
    """In the place of one of Ray's."""

    def __init__(self, name):
        self.name = name

    def hex(self):
        return self.name


def test_a_clone_is_fetched_once_while_it_is_one_of_the_last_few(monkeypatch, tmp_path):
    import ray

    fetched, jobs = (
        [],
        {name: Clone.of(plan_of(number, 8), Location(str(tmp_path))) for number, name in enumerate("abc", 1)},
    )
    monkeypatch.setattr(ray, "get", lambda reference: fetched.append(reference.name) or jobs[reference.name])
    monkeypatch.setattr(sent_clones, "NUM_KEPT", 2)
    kept = KeptClones()
    for name in "aababacabb":
        assert kept.fetch(SentClone(Reference(name))) is jobs[name]
    assert "".join(fetched) == "abcb" and len(kept.kept) == 2
