"""The living actors of this Ray, as its head knows them. Ray's own list of states needs the dashboard."""

from types import SimpleNamespace


def living_actors(word=""):
    """Those with a word in the name of their class; each has `pid`, `actor_id` and `class_name`."""
    from ray._private.state import actors

    found = (each for each in actors().values() if each["State"] == "ALIVE" and word in each["ActorClassName"])
    return [
        SimpleNamespace(pid=each["Pid"], actor_id=each["ActorID"], class_name=each["ActorClassName"]) for each in found
    ]
