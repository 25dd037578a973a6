"""What Prometheus and Grafana read is what Ray serves, and what Kueue needs of a job."""

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
from crd_schema import problems, spec_schema
from kustomization import build

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "configs" / "kuberay"
METRIC = re.compile(r"\bray_[a-z_]+\b")
WAIT_SECONDS = 120.0
LABELS = {"ray_io_cluster", "ray_io_node_type"}


def dashboard_metrics():
    text = (KUBERAY / "monitoring" / "grafana.json").read_text()
    return set(METRIC.findall(text)) - LABELS


def doc_metrics():
    text = (ROOT / "docs" / "clones.md").read_text().partition("## Metrics")[2].partition("\n## ")[0]
    return set(METRIC.findall(text))


@pytest.fixture(scope="module")
def served(ray_cluster):
    """The names of the metrics that Ray serves, once an actor has counted a shard."""
    import ray

    from raysd.generation.actor import _Metrics

    class Counting:
        def __init__(self):
            self.metrics = _Metrics()

        def count(self):
            self.metrics.count(12, 1, 2, 3.0, 0.9)

    actor = ray.remote(num_cpus=0)(Counting).remote()
    ray.get(actor.count.remote())
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    ends, names = time.monotonic() + WAIT_SECONDS, set()
    wanted = {name for name in doc_metrics() if "raysd" in name}  # they come one by one
    while not wanted <= names and time.monotonic() < ends:
        with urllib.request.urlopen(address, timeout=10) as page:
            names = set(re.findall(r"^([a-z_]+)[{ ]", page.read().decode(), re.MULTILINE))
        time.sleep(0.5)
    ray.kill(actor)
    return names


@pytest.mark.slow
def test_the_docs_and_the_dashboard_name_the_metrics_that_ray_serves(served):
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    assert {name for name in served if "raysd" in name} == {name for name in doc_metrics() if "raysd" in name}
    of_gpus = {f"ray_{name}" for name in METRICS_GAUGES if "gpu" in name or "gram" in name}
    assert dashboard_metrics() - served <= of_gpus  # there are none here


def test_the_dashboard_is_one_that_grafana_opens():
    dashboard = json.loads((KUBERAY / "monitoring" / "grafana.json").read_text())
    assert dashboard["uid"] == dashboard["title"] == "raysd" and dashboard["panels"]
    assert {each["name"] for each in dashboard["templating"]["list"]} == {"datasource", "cluster"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"} and panel["targets"]
        assert all('ray_io_cluster=~"$cluster"' in target["expr"] for target in panel["targets"])
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_prometheus_finds_and_may_read_the_ray_pods():
    by_kind = {each["kind"]: each for each in build(KUBERAY / "monitoring")}
    monitor, policy = by_kind["PodMonitor"], by_kind["NetworkPolicy"]
    chosen = monitor["spec"]["selector"]["matchLabels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == chosen
    for job in (each for each in build(KUBERAY / "small") if each["kind"] == "RayJob"):
        cluster = job["spec"]["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        assert all(chosen.items() <= group["template"]["metadata"]["labels"].items() for group in groups)
    (port,) = policy["spec"]["ingress"][0]["ports"]
    assert port == {"protocol": "TCP", "port": 8080}  # which KubeRay calls `metrics`
    assert [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]
    targets = {each["targetLabel"] for each in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]}
    assert targets == LABELS
    board = by_kind["ConfigMap"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1" and json.loads(board["data"]["grafana.json"])


@pytest.mark.parametrize("source", ["ours", "kuberay"])
def test_jobs_in_a_queue_fit_kuberay_and_kueue(source):
    resources = build(KUBERAY / "kueue")
    (queue,) = (each for each in resources if each["kind"] == "LocalQueue")
    (quota,) = (each for each in resources if each["kind"] == "ClusterQueue")
    (flavor,) = (each for each in resources if each["kind"] == "ResourceFlavor")
    assert queue["metadata"]["namespace"] == "raysd" and queue["spec"]["clusterQueue"] == quota["metadata"]["name"]
    (group,) = quota["spec"]["resourceGroups"]
    limits = {each["name"]: each["nominalQuota"] for each in group["flavors"][0]["resources"]}
    assert list(limits) == group["coveredResources"] and group["flavors"][0]["name"] == flavor["metadata"]["name"]
    jobs = [each for each in resources if each["kind"] == "RayJob"]
    assert len(jobs) == 4
    for job in jobs:
        spec = job["spec"]
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
        assert spec["shutdownAfterJobFinishes"] is True and "deletionStrategy" not in spec
        cluster = spec["rayClusterSpec"]
        assert cluster["enableInTreeAutoscaling"] is False and "clusterSelector" not in spec
        groups = cluster["workerGroupSpecs"]
        assert len(groups) <= 7 and all(each["replicas"] >= 1 for each in groups)
        assert problems(spec_schema(source, "RayJob"), spec) == []
        pods = [
            cluster["headGroupSpec"]["template"],
            *(each["template"] for each in groups),
            spec["submitterPodTemplate"],
        ]
        asked = {name for pod in pods for each in pod["spec"]["containers"] for name in each["resources"]["requests"]}
        assert asked <= set(limits)
