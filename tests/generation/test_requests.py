"""What a shard costs on an object store, counted on a real server; docs/scale.md says it too."""

from collections import Counter

import pytest
from object_store import FlakyProxy, s3_uri
from plans import plan_of
from stand_in import StandIn, actor_of

from raysd.clone.clone import Clone
from raysd.clone.scan import missing_shards
from raysd.clone.settings import GenerationSettings
from raysd.generation.generate import generate_clones
from raysd.storage.location import Location


@pytest.fixture
def proxy(s3_server):
    proxy = FlakyProxy(s3_server, 0)
    yield proxy
    proxy.stop()


def requests_of(proxy, work):
    before = len(proxy.requests)
    work()
    return Counter(method for method, _ in proxy.requests[before:])


def test_requests_of_a_shard_are_few_and_connections_do_not_grow_with_their_number(proxy, tmp_path):
    def job_of(count):
        return Clone.of(plan_of(count, 10), Location(s3_uri(proxy.port, "raysd")).child(tmp_path.name))

    def generate(job):
        def generate(jobs, shards):
            actor = actor_of(job, StandIn(), batch_size=10)
            yield from ({**actor.generate_shard(job, shard), "clone": 0} for shard in shards[0].tolist())

        generate_clones([job], GenerationSettings(), generate=generate)

    generate(job_of(2))
    few = requests_of(proxy, lambda: generate(job_of(12)))  # 10 new shards, 12 are read back
    connections = proxy.connections
    many = requests_of(proxy, lambda: generate(job_of(42)))  # 30 and 42
    index = Counter({"GET": 2, "PUT": 1})  # of many shards: one more listing, and the index
    assert many - few - index == {"HEAD": 20 * 2 + 30, "PUT": 20, "GET": 30 * 2}
    assert proxy.connections - connections <= 32  # as many as threads read back
    assert requests_of(proxy, lambda: missing_shards(job_of(42))) == {"HEAD": 1, "GET": 2}
