"""What `kubectl kustomize` makes of configs/kuberay, for the fields that its kustomizations use; any other field is
an error."""

import copy
from pathlib import Path

import jsonpatch
import yaml

KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "nameSuffix",
    "resources",
    "configMapGenerator",
    "generatorOptions",
    "labels",
    "images",
    "patches",
}
WITHOUT_NAMESPACE = {"Namespace"}


def build(folder: Path) -> list[dict]:
    """The resources of a kustomization, in kustomize's order: resources, generators, patches, namespace, suffix,
    labels, images."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization) <= KNOWN, f"{folder}: {set(kustomization) - KNOWN}"
    resources = [each for name in kustomization["resources"] for each in _read(folder, name)]
    for generator in kustomization.get("configMapGenerator", []):
        assert kustomization["generatorOptions"] == {"disableNameSuffixHash": True}
        _generate(folder, generator, resources)
    for patch in kustomization.get("patches", []):
        resources = _patched(folder, patch, resources)
    for resource in resources:
        if "namespace" in kustomization and resource["kind"] not in WITHOUT_NAMESPACE:
            resource["metadata"]["namespace"] = kustomization["namespace"]
        resource["metadata"]["name"] += kustomization.get("nameSuffix", "")
        for label in kustomization.get("labels", []):
            assert set(label) == {"pairs"}
            resource["metadata"].setdefault("labels", {}).update(label["pairs"])
        for image in kustomization.get("images", []):
            _rename_image(image, resource)
    names = [(each["kind"], each["metadata"]["name"]) for each in resources]
    assert len(names) == len(set(names)), f"{folder}: {names}"
    return resources


def _read(folder: Path, name: str) -> list[dict]:
    path = folder / name
    if path.is_dir():
        return build(path)
    assert path.resolve().is_relative_to(folder.resolve()), f"{path}: kustomize reads no file outside of its folder"
    return list(yaml.safe_load_all(path.read_text()))


def _generate(folder: Path, generator: dict, resources: list[dict]) -> None:
    assert set(generator) <= {"name", "behavior", "literals", "files"}
    data = dict(literal.split("=", 1) for literal in generator.get("literals", []))
    data.update({Path(name).name: (folder / name).read_text() for name in generator.get("files", [])})
    same = [each for each in resources if each["kind"] == "ConfigMap" and each["metadata"]["name"] == generator["name"]]
    if generator.get("behavior", "create") == "merge":
        assert len(same) == 1, f"{folder}: no ConfigMap {generator['name']} to merge with"
        same[0]["data"].update(data)
    else:
        assert not same
        resources.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
        )


def _patched(folder: Path, patch: dict, resources: list[dict]) -> list[dict]:
    operations = yaml.safe_load(patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text())
    assert set(patch["target"]) == {"kind"}
    assert any(each["kind"] == patch["target"]["kind"] for each in resources), (
        f"{folder}: nothing to patch at {patch['target']}"
    )
    changed = []
    for each in resources:
        is_meant = each["kind"] == patch["target"]["kind"]
        changed.append(jsonpatch.apply_patch(each, copy.deepcopy(operations)) if is_meant else each)
    return changed


def _rename_image(image: dict, node: object) -> None:
    """In all lists called containers, wherever they lie, as kustomize does."""
    if isinstance(node, list):
        for each in node:
            _rename_image(image, each)
    elif isinstance(node, dict):
        for container in node.get("containers", []):
            name = container["image"].rsplit(":", 1)[0]
            if name == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
        for each in node.values():
            _rename_image(image, each)
