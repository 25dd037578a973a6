"""The schemas of KubeRay's custom resources, read as the API server reads them, but for one thing: fields that it would drop are errors."""

import copy
from functools import cache
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "kuberay_crds"
FILES = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}


@cache
def spec_schema(kind: str) -> dict:
    """The schema of a resource's `spec`, version v1."""
    path = FOLDER / FILES[kind]
    if not path.is_file():
        pytest.skip(f"needs KubeRay's {FILES[kind]}")
    definition = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def problems(node: dict, value: object) -> list[str]:
    """What is wrong with a value, a line each."""
    value = copy.deepcopy(value)
    _fill(node, value)
    found = Draft202012Validator(_strict(node)).iter_errors(value)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]


def _fill(node: dict, value: object) -> None:
    """Write defaults; the API server does so before it validates."""
    if isinstance(value, dict):
        for name, child in node.get("properties", {}).items():
            if "default" in child:
                value.setdefault(name, copy.deepcopy(child["default"]))
            if name in value:
                _fill(child, value[name])
        for name, each in value.items():
            if isinstance(node.get("additionalProperties"), dict) and name not in node.get("properties", {}):
                _fill(node["additionalProperties"], each)
    elif isinstance(value, list):
        for each in value:
            _fill(node.get("items", {}), each)


def _strict(node: dict) -> dict:
    """A JSON schema with Kubernetes' extensions spelled out."""
    strict = {name: value for name, value in node.items() if not name.startswith("x-kubernetes") and name not in ("description", "default", "nullable")}
    if "properties" in node:
        strict["properties"] = {name: _strict(child) for name, child in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(node["additionalProperties"])
    elif node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    if "items" in node:
        strict["items"] = _strict(node["items"])
    if node.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
    if node.get("nullable"):
        strict["type"] = [strict["type"], "null"]
    return strict
