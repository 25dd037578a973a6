import re
import shlex
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml
from crd_schema import problems, spec_schema, wider
from kustomization import build

from raysd.cli import app
from raysd.config import load_experiment

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "configs" / "kuberay"
PLACES = {"/opt/raysd": ROOT, "/etc/raysd": KUBERAY / "base" / "setup"}  # in a pod, and where it comes from
FOLDERS = ["base", "small", "gpus-100"]
JOBS = ["raysd-generate", "raysd-train", "raysd-evaluate", "raysd-sweep"]
GPU = "nvidia.com/gpu"
SECRET_NAMES = re.compile("TOKEN|SECRET|PASSWORD|KEY", re.IGNORECASE)

in_each_folder = pytest.mark.parametrize("folder", FOLDERS)
by_each_schema = pytest.mark.parametrize("source", ["ours", "kuberay"])


@cache
def resources(folder):
    return build(KUBERAY / folder)


def of_kind(folder, kind):
    return [each for each in resources(folder) if each["kind"] == kind]


def clusters(folder):
    """Names and cluster specs of everything that starts Ray."""
    found = {each["metadata"]["name"]: each["spec"]["rayClusterSpec"] for each in of_kind(folder, "RayJob")}
    return {**found, **{each["metadata"]["name"]: each["spec"] for each in of_kind(folder, "RayCluster")}}


def ray_pods(cluster):
    """The pod templates of a cluster's head and groups."""
    return {
        "head": cluster["headGroupSpec"]["template"],
        **{group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]},
    }


def pods(folder):
    """All pod templates, by a readable name."""
    found = {
        f"{name} {group}": pod for name, cluster in clusters(folder).items() for group, pod in ray_pods(cluster).items()
    }
    return {
        **found,
        **{
            f"{job['metadata']['name']} submitter": job["spec"]["submitterPodTemplate"]
            for job in of_kind(folder, "RayJob")
        },
    }


def containers(folder):
    return {f"{name} {each['name']}": each for name, pod in pods(folder).items() for each in pod["spec"]["containers"]}


def test_each_job_and_the_cluster_are_there():
    for folder in FOLDERS:
        assert [each["metadata"]["name"] for each in of_kind(folder, "RayJob")] == JOBS
        assert [each["metadata"]["name"] for each in of_kind(folder, "RayCluster")] == ["raysd"]
        assert all(
            each["kind"] == "Namespace" or each["metadata"]["namespace"] == "raysd" for each in resources(folder)
        )


def test_each_resource_can_be_applied_by_its_part():
    parts = {
        each["metadata"]["name"]: each["metadata"]["labels"]["part"] for folder in FOLDERS for each in resources(folder)
    }
    assert {name: parts.pop(name) for name in JOBS} == {name: name.removeprefix("raysd-") for name in JOBS}
    for folder in FOLDERS:
        assert {each["metadata"]["labels"]["part"] for each in resources(folder) if each["kind"] == "RayCluster"} == {
            "cluster"
        }
        assert {
            each["metadata"]["labels"]["part"] for each in resources(folder) if not each["kind"].startswith("Ray")
        } == {"setup"}


@by_each_schema
@in_each_folder
@pytest.mark.parametrize("kind", ["RayJob", "RayCluster"])
def test_rays_resources_fit_the_schema_of_kuberay(source, folder, kind):
    for resource in of_kind(folder, kind):
        assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
        assert resource["apiVersion"] == "ray.io/v1"
        assert problems(spec_schema(source, kind), resource["spec"]) == []


@by_each_schema
def test_the_schema_refuses_what_kubernetes_would_drop_and_what_has_another_type(source):
    def broken(change):
        spec = build(KUBERAY / "base" / "cluster")[0]["spec"]
        change(spec, spec["workerGroupSpecs"][0]["template"]["spec"])
        return problems(spec_schema(source, "RayCluster"), spec)

    assert broken(lambda spec, pod: None) == []
    assert any("wokerGroupSpecs" in line for line in broken(lambda spec, pod: spec.update(wokerGroupSpecs=[])))
    assert any(
        "allowPrivilegeEscalatoin" in line
        for line in broken(
            lambda spec, pod: pod["containers"][0]["securityContext"].update(allowPrivilegeEscalatoin=False)
        )
    )
    assert any("'0'" in line for line in broken(lambda spec, pod: spec["workerGroupSpecs"][0].update(minReplicas="0")))
    assert any("headGroupSpec" in line for line in broken(lambda spec, pod: spec.pop("headGroupSpec")))
    assert (
        broken(lambda spec, pod: pod["containers"][0]["resources"]["limits"].update(cpu=8)) == []
    )  # an int or a string
    assert any(
        "'8 cores'" in line
        for line in broken(lambda spec, pod: pod["containers"][0]["resources"]["limits"].update(cpu="8 cores"))
    )
    assert any("'v3'" in line for line in broken(lambda spec, pod: spec["autoscalerOptions"].update(version="v3")))
    assert (
        broken(lambda spec, pod: [spec["workerGroupSpecs"][0].pop(name) for name in ("minReplicas", "maxReplicas")])
        == []
    )  # filled in


@pytest.mark.parametrize("kind", ["RayJob", "RayCluster"])
def test_our_schema_allows_no_field_type_or_value_that_kuberays_refuses(kind):
    assert wider(spec_schema("ours", kind), spec_schema("kuberay", kind)) == []


@by_each_schema
@in_each_folder
def test_what_kubernetes_itself_knows_fits_the_schemas_that_kuberay_embeds(source, folder):
    cluster = spec_schema(source, "RayCluster")["properties"]
    rules = cluster["networkPolicy"]["properties"]["head"]["properties"]
    for policy in of_kind(folder, "NetworkPolicy"):
        assert set(policy["spec"]) <= {"podSelector", "policyTypes", "ingress", "egress"}
        for way in ("ingress", "egress"):
            assert (way in policy["spec"]) == (way.title() in policy["spec"]["policyTypes"])
            assert problems(rules[f"{way}Rules"], policy["spec"].get(way, [])) == []
    volume = cluster["headGroupSpec"]["properties"]["template"]["properties"]["spec"]["properties"]["volumes"]["items"][
        "properties"
    ]
    claim = volume["ephemeral"]["properties"]["volumeClaimTemplate"]["properties"]["spec"]
    for each in of_kind(folder, "PersistentVolumeClaim"):
        assert problems(claim, each["spec"]) == []
        assert each["spec"]["accessModes"] == ["ReadWriteMany"]  # head and workers lie on several nodes


@in_each_folder
def test_each_entrypoint_is_a_command_that_raysd_accepts(folder, monkeypatch):
    (settings,) = (each["data"] for each in of_kind(folder, "ConfigMap") if each["metadata"]["name"] == "settings")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for job in of_kind(folder, "RayJob"):
        entrypoint = job["spec"]["entrypoint"]
        assert not set(entrypoint) & set("$'\"\\&|;<>`"), "two shells read it"
        interpreter, script, *words = shlex.split(entrypoint)
        assert interpreter == "python"
        (verb,) = re.findall(r'run_job\("(\w+)"\)', here(script).read_text())
        assert job["metadata"]["name"] == f"raysd-{verb}"
        typer.main.get_command(app).commands[verb].make_context(verb, list(words))
        config, overrides = words[0], list(words[1:])
        experiment = load_experiment(here(config), overrides)
        assert experiment.storage == settings["RAYSD_STORAGE"]


def here(place):
    """The repository's file that lies at a place in a pod."""
    path = Path(place)
    assert str(path.parents[-3]) in PLACES, f"{place}: neither in the image nor mounted"
    return PLACES[str(path.parents[-3])] / path.relative_to(path.parents[-3])


@in_each_folder
def test_the_experiment_in_the_cluster_is_the_one_in_the_file(folder):
    (mounted,) = (each["data"] for each in of_kind(folder, "ConfigMap") if each["metadata"]["name"] == "experiment")
    assert mounted == {"experiment.yaml": (KUBERAY / "base" / "setup" / "experiment.yaml").read_text()}


@in_each_folder
def test_jobs_and_the_cluster_have_the_same_pods(folder):
    first, *others = clusters(folder).values()
    assert all(other == first for other in others)


@in_each_folder
def test_kuberay_accepts_the_jobs(folder):
    """What its controller checks and no schema says."""
    for job in of_kind(folder, "RayJob"):
        spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"])
        assert spec["backoffLimit"] >= 1
        assert spec["activeDeadlineSeconds"] >= 3600
        assert not {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "suspend", "clusterSelector"} & set(spec), (
            "not together with deletion rules"
        )
        rules = spec["deletionStrategy"]["deletionRules"]
        assert {rule["policy"] for rule in rules} == {"DeleteCluster"}, "DeleteWorkers is refused with the autoscaler"
        conditions = [
            {name: value for name, value in rule["condition"].items() if name != "ttlSeconds"} for rule in rules
        ]
        assert conditions == [{"jobStatus": "SUCCEEDED"}, {"jobDeploymentStatus": "Failed"}], (
            "no end of a job leaves GPUs behind"
        )
        assert spec["submissionMode"] == "K8sJobMode"
        assert spec["submitterConfig"] == {"backoffLimit": 0}
        assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
        assert not {"networkPolicy", "tlsOptions", "historyServerOptions"} & set(cluster), (
            "need feature gates that are off by default"
        )


@in_each_folder
def test_worker_groups_scale_and_start_with_gpus(folder):
    for cluster in clusters(folder).values():
        assert cluster["enableInTreeAutoscaling"] is True
        assert cluster["autoscalerOptions"]["version"] == "v2"  # priorities need it
        groups = cluster["workerGroupSpecs"]
        for group in groups:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            assert "restartPolicy" not in group["template"]["spec"]
            (container,) = group["template"]["spec"]["containers"]
            assert int(container["resources"]["limits"][GPU]) >= 1
        assert sum(group["replicas"] for group in groups) >= 1, "raysd asks for GPUs that are there when it starts"
        priorities = {group["groupName"]: group.get("priority", 0) for group in groups}
        assert priorities["on-demand"] == 0 < priorities.get("spot", 1)


@pytest.mark.parametrize(("folder", "groups", "gpus"), [("base", 2, 8), ("small", 1, 1), ("gpus-100", 2, 100)])
def test_a_run_may_take_as_many_gpus_as_its_folder_says(folder, groups, gpus):
    (quota,) = of_kind(folder, "ResourceQuota")
    assert quota["spec"]["hard"] == {f"requests.{GPU}": str(gpus)}
    for cluster in clusters(folder).values():
        most = [
            group["maxReplicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"][GPU])
            for group in cluster["workerGroupSpecs"]
        ]
        assert len(most) == groups
        assert sum(most) == gpus


@in_each_folder
def test_the_head_does_no_work_and_is_not_exposed(folder):
    for cluster in clusters(folder).values():
        head = cluster["headGroupSpec"]
        assert head["rayStartParams"]["num-cpus"] == "0"
        assert not any(GPU in container["resources"]["limits"] for container in head["template"]["spec"]["containers"])
        assert head["serviceType"] == "ClusterIP"
        assert not head.get("enableIngress")
        assert "dashboard-host" not in head["rayStartParams"]  # KubeRay's own: probes and operator reach it
        assert cluster["authOptions"] == {"mode": "token"}
    assert not of_kind(folder, "Ingress") + of_kind(folder, "Service")


@in_each_folder
def test_pods_run_without_rights(folder):
    (namespace,) = of_kind(folder, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(folder).items():
        spec = pod["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == context["fsGroup"] == 1000, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec), name
        assert not any("hostPath" in volume for volume in spec.get("volumes", [])), name
    autoscalers = {f"{name} autoscaler": cluster["autoscalerOptions"] for name, cluster in clusters(folder).items()}
    for name, container in {**containers(folder), **autoscalers}.items():
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}, (
            name
        )


@in_each_folder
def test_only_the_autoscaler_holds_a_token_for_kubernetes(folder):
    for cluster in clusters(folder).values():
        head = cluster["headGroupSpec"]["template"]["spec"]
        (volume,) = (each for each in head["volumes"] if "projected" in each)
        assert {name for source in volume["projected"]["sources"] for name in source} == {
            "serviceAccountToken",
            "configMap",
            "downwardAPI",
        }
        (mount,) = cluster["autoscalerOptions"]["volumeMounts"]
        assert mount == {
            "name": volume["name"],
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            "readOnly": True,
        }
    assert not any(
        mount["name"] == "api-token" for each in containers(folder).values() for mount in each.get("volumeMounts", [])
    )


@in_each_folder
def test_pods_say_what_they_need(folder):
    for name, container in containers(folder).items():
        bounds = container["resources"]
        assert set(bounds["requests"]) == set(bounds["limits"]) >= {"cpu", "memory"}, name
        assert bounds["requests"]["memory"] == bounds["limits"]["memory"], name
        assert bounds["requests"].get(GPU) == bounds["limits"].get(GPU), name


@in_each_folder
def test_ray_pods_have_a_cache_and_the_settings(folder):
    for cluster in clusters(folder).values():
        for name, pod in ray_pods(cluster).items():
            volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
            (container,) = pod["spec"]["containers"]
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= set(volumes), name
            assert "emptyDir" in volumes[mounts["/cache"]], name
            assert container["envFrom"] == [{"configMapRef": {"name": "settings"}}], name
    (settings,) = (each["data"] for each in of_kind(folder, "ConfigMap") if each["metadata"]["name"] == "settings")
    places = [settings[name] for name in ("HF_HOME", "TORCH_HOME", "RAYSD_STORAGE")]
    mounted = [mount["mountPath"] for mount in containers(folder)["raysd on-demand ray-worker"]["volumeMounts"]]
    assert all(place.startswith("s3://") or any(place.startswith(f"{mount}/") for mount in mounted) for place in places)


def gibibytes(quantity):
    (number,) = re.fullmatch(r"(\d+)Gi", quantity).groups()
    return int(number)


def shared_memory(pod):
    """GiB of /dev/shm: of the pod's own volume, or of the one that KubeRay adds, which is as large as the requested
    memory."""
    (container,) = pod["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    if "/dev/shm" not in mounts:
        return gibibytes(container["resources"]["requests"]["memory"])
    (volume,) = (volume for volume in pod["spec"]["volumes"] if volume["name"] == mounts["/dev/shm"])
    assert volume["emptyDir"]["medium"] == "Memory"
    return gibibytes(volume["emptyDir"]["sizeLimit"])


def object_store_place(memory, shared):
    """Where Ray itself puts its object store on an idle machine with so many GiB of memory, and of /dev/shm; a
    folder of `/tmp` lies on a disk."""
    import ray
    from ray._common import utils as common
    from ray._private import services, utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "get_system_memory", lambda: memory * 2**30)
        patch.setattr(utils, "get_shared_memory_bytes", lambda: shared * 2**30)
        assert ray._private.utils.get_shared_memory_bytes() == shared * 2**30
        place, _, _ = services.determine_plasma_store_config(utils.resolve_object_store_memory(memory * 2**30), "/tmp")
    return place


@in_each_folder
def test_rays_object_store_is_in_memory(folder):
    for cluster in clusters(folder).values():
        for start in [
            cluster["headGroupSpec"]["rayStartParams"],
            *(group["rayStartParams"] for group in cluster["workerGroupSpecs"]),
        ]:
            assert not {"plasma-directory", "object-store-memory"} & set(
                start
            )  # with a directory of your own KubeRay adds no shared memory
        for name, pod in ray_pods(cluster).items():
            memory = gibibytes(pod["spec"]["containers"][0]["resources"]["limits"]["memory"])
            assert object_store_place(memory, shared_memory(pod)) == "/dev/shm", name


@pytest.mark.parametrize(
    ("memory", "shared", "place"),
    [(16, 4, "/tmp"), (32, 8, "/tmp"), (64, 4, "/tmp"), (16, 5, "/dev/shm"), (128, 32, "/dev/shm")],
)
def test_ray_puts_its_object_store_on_a_disk_where_the_shared_memory_is_small(memory, shared, place):
    assert object_store_place(memory, shared) == place


def documented_models():
    """GB that are fetched of each model that the docs name, and GB of the files that are read."""
    (table,) = re.findall(r"\| hub model \|.*?\n\n", (ROOT / "docs" / "clusters.md").read_text(), flags=re.DOTALL)
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()[2:]]
    return {row[0]: (float(row[2]), float(row[3])) for row in rows}


@in_each_folder
def test_the_cache_holds_the_largest_model_that_the_docs_name_and_half_as_much_again(folder):
    models = documented_models()
    experiment = yaml.safe_load((KUBERAY / "base" / "setup" / "experiment.yaml").read_text())
    assert experiment["generation"]["model"] in models
    for name, pod in pods(folder).items():
        for volume in pod["spec"].get("volumes", []):
            if volume["name"] == "cache":
                assert gibibytes(volume["emptyDir"]["sizeLimit"]) * 2**30 > 1.5e9 * max(
                    fetched for fetched, _ in models.values()
                ), name
    for claim in of_kind(folder, "PersistentVolumeClaim"):
        assert gibibytes(claim["spec"]["resources"]["requests"]["storage"]) * 2**30 > 3e9 * max(
            fetched for fetched, _ in models.values()
        )  # and the results


def test_what_is_said_to_be_fetched_is_the_sum_of_the_files():
    """By millions of parameters and the bytes of each; the last terms are files for other programs. Fetched is
    half precision."""
    text, vision, wide, t5, vae = 123.06, 303.18, 694.66, 4762.31, 83.65
    stable = [859.52, text, vision, vae]
    large = [2567.46, text, wide, vae]
    flux = [11_901.41, text, t5, 83.82]
    sums = {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": (
            (4 + 2) * sum(stable) + 4 * 859.52 + 4270 + 7700,
            2 * sum(stable),
        ),
        "stabilityai/stable-diffusion-xl-base-1.0": ((4 + 2) * (sum(large) + vae) + 2 * 6940, 2 * sum(large)),
        "black-forest-labs/FLUX.1-dev": (2 * sum(flux) + 2 * 11_901.41 + 4 * 83.82, 2 * sum(flux)),
    }
    for name, (fetched, loaded) in documented_models().items():
        assert (fetched, loaded) == pytest.approx([part / 1000 for part in sums[name]], abs=0.2)


@in_each_folder
def test_what_pods_name_is_there(folder):
    names = {
        kind: {each["metadata"]["name"] for each in of_kind(folder, kind)}
        for kind in ("ConfigMap", "ServiceAccount", "PersistentVolumeClaim")
    }
    for name, pod in pods(folder).items():
        assert pod["spec"]["serviceAccountName"] in names["ServiceAccount"], name
        for volume in pod["spec"].get("volumes", []):
            assert volume.get("configMap", {}).get("name", "experiment") in names["ConfigMap"], name
            assert (
                "persistentVolumeClaim" not in volume
                or volume["persistentVolumeClaim"]["claimName"] in names["PersistentVolumeClaim"]
            ), name
        for container in pod["spec"]["containers"]:
            assert all(
                source["configMapRef"]["name"] in names["ConfigMap"] for source in container.get("envFrom", [])
            ), name


@in_each_folder
def test_secrets_come_from_the_cluster_and_are_optional(folder):
    assert not of_kind(folder, "Secret")
    for name, container in containers(folder).items():
        for variable in container.get("env", []):
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference == {"name": "credentials", "key": variable["name"], "optional": True}, name
        if not name.endswith("submitter"):
            assert {each["name"] for each in container["env"]} == {
                "HF_TOKEN",
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
            }, name
    for settings in of_kind(folder, "ConfigMap"):
        assert not any(SECRET_NAMES.search(name) for name in settings["data"])
    # KubeRay keeps the token of a cluster in a secret of the cluster's name.
    assert not {each["metadata"]["name"] for each in of_kind(folder, "RayCluster")} & {"credentials"}


@in_each_folder
def test_nobody_but_the_pods_and_the_operator_comes_in(folder):
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(folder, "NetworkPolicy")}
    own = {"matchLabels": {"app.kubernetes.io/part-of": "raysd"}}
    assert all(pod["metadata"]["labels"] == own["matchLabels"] for pod in pods(folder).values())
    assert policies["ingress"]["podSelector"] == policies["egress"]["podSelector"] == {}  # of the whole namespace
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
    }
    inside, from_operator = policies["ingress"]["ingress"]
    assert inside == {"from": [{"podSelector": own}]}
    assert from_operator == {"from": [operator], "ports": [{"protocol": "TCP", "port": 8265}]}
    ports = [sorted({port["port"] for port in rule.get("ports", [])}) for rule in policies["egress"]["egress"]]
    assert ports == [[], [53], [443]]
    assert policies["egress"]["egress"][0] == {"to": [{"podSelector": own}]}
    assert policies["autoscaler"]["podSelector"]["matchLabels"]["ray.io/node-type"] == "head"


@in_each_folder
def test_all_containers_run_one_pinned_image(folder):
    images = {container["image"] for container in containers(folder).values()}
    (image,) = images
    name, _, tag = image.rpartition(":")
    assert name.rsplit("/", 1)[-1] == "raysd"
    assert tag == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@in_each_folder
def test_the_manifests_name_the_ray_version_of_the_image(folder):
    (version,) = re.findall(r"^ARG RAY_VERSION=(\S+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert {cluster["rayVersion"] for cluster in clusters(folder).values()} == {version}


def test_the_readme_names_folders_parts_and_objects_that_exist():
    text = (KUBERAY / "README.md").read_text()
    parts = {each["metadata"]["labels"]["part"] for each in resources("small")}
    assert set(re.findall(r"part=(\w+)", text)) <= parts
    for folder in re.findall(r"-k configs/kuberay/(\S+)", text):
        assert (KUBERAY / folder.rstrip("`") / "kustomization.yaml").is_file()
    for name in re.findall(r"`(base/\S+\.yaml|\S+/kustomization\.yaml)`", text):
        assert (KUBERAY / name).is_file()
    keys = set(re.findall(r"--from-literal=(\w+)", text))
    assert keys == {each["name"] for each in containers("small")["raysd head ray-head"]["env"]}


@in_each_folder
def test_these_tests_build_what_kubectl_builds(folder):
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    finished = subprocess.run(["kubectl", "kustomize", str(KUBERAY / folder)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr

    def order(each):
        return each["kind"], each["metadata"]["name"]

    assert sorted(yaml.safe_load_all(finished.stdout), key=order) == sorted(resources(folder), key=order)


def test_kustomizations_are_read_as_kustomize_reads_them(tmp_path):
    """The small part of kustomize in these tests: suffix, labels, patches, merged settings, images."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "job.yaml").write_text(
        yaml.safe_dump({"kind": "RayJob", "metadata": {"name": "a"}, "spec": {"containers": [{"image": "x:1"}]}})
    )
    settings = {
        "configMapGenerator": [{"name": "s", "literals": ["a=1", "b=2"]}],
        "generatorOptions": {"disableNameSuffixHash": True},
    }
    (tmp_path / "base" / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["job.yaml"], "nameSuffix": "-b", **settings})
    )
    settings["configMapGenerator"] = [{"name": "s-b", "behavior": "merge", "literals": ["b=3=4"]}]
    patch = {"target": {"kind": "RayJob"}, "patch": "[{op: add, path: /spec/entrypoint, value: go}]"}
    top = {
        "resources": ["base"],
        "namespace": "n",
        "labels": [{"pairs": {"part": "p"}}],
        "patches": [patch],
        **settings,
    }
    top["images"] = [{"name": "x", "newName": "registry/x", "newTag": "2"}]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(top))
    job, merged = build(tmp_path)
    assert job["metadata"] == {"name": "a-b", "namespace": "n", "labels": {"part": "p"}}
    assert job["spec"] == {"containers": [{"image": "registry/x:2"}], "entrypoint": "go"}
    assert merged["data"] == {"a": "1", "b": "3=4"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**top, "namePrefix": "q"}))
    with pytest.raises(AssertionError, match="namePrefix"):
        build(tmp_path)
