"""The schemas of KubeRay's custom resources, read as the API server reads them, but for one thing: fields that it
would drop are errors.

They come from KubeRay's own files where those lie beside the checkout, and from `fields.yaml`, which has what our
manifests use.
"""

import copy
from functools import cache
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "kuberay_crds"
FILES = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}
INT_OR_STRING = "x-kubernetes-int-or-string"
SCALARS = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "port": {INT_OR_STRING: True},
    "quantity": {INT_OR_STRING: True, "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|[KMGT]i|[MGT])?$"},
}


@cache
def spec_schema(source: str, kind: str) -> dict:
    """The schema of a resource's `spec`, version v1, by `kuberay` or by us (`ours`)."""
    if source == "ours":
        return _expanded(yaml.safe_load(Path(__file__).with_name("fields.yaml").read_text())[kind])
    path = FOLDER / FILES[kind]
    if not path.is_file():
        pytest.skip(f"needs KubeRay's {FILES[kind]}")
    definition = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def _expanded(node: object) -> dict:
    """The schema that a node of `fields.yaml` stands for."""
    if isinstance(node, list):
        return {"type": "array", "items": _expanded(*node)}
    if isinstance(node, dict) and "<name>" in node:
        return {"type": "object", "additionalProperties": _expanded(node["<name>"])}
    if isinstance(node, dict):
        properties = {name.removesuffix("!"): _expanded(child) for name, child in node.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": [name[:-1] for name in node if name.endswith("!")],
        }
    if node.startswith("enum "):
        return {"type": "string", "enum": node.split()[1:]}
    kind, _, default = node.partition(" = ")
    return {**SCALARS[kind], **({"default": yaml.safe_load(default)} if default else {})}


def wider(ours: dict, theirs: dict, place: str = "spec") -> list[str]:
    """Where the first schema allows what the second one refuses, a line each; bounds of numbers and of lengths are
    not compared."""
    unlike = [name for name in ("type", INT_OR_STRING) if ours.get(name) != theirs.get(name)]
    unlike += [name for name in ("enum", "pattern") if name in theirs and name not in ours]
    unlike += ["default"] if "default" in ours and ours["default"] != theirs.get("default") else []
    found = [f"{place}: {name} is {ours.get(name)}, not {theirs.get(name)}" for name in unlike]
    found += [f"{place}: may be {value}" for value in ours.get("enum", []) if value not in theirs.get("enum", [value])]
    found += [
        f"{place}: need not have {name}" for name in theirs.get("required", []) if name not in ours.get("required", [])
    ]
    for name, child in ours.get("properties", {}).items():
        other = theirs.get("properties", {}).get(name)
        found += [f"{place}/{name}: is not there"] if other is None else wider(child, other, f"{place}/{name}")
    for name in ("items", "additionalProperties"):
        found += wider(ours[name], theirs.get(name, {}), f"{place}/*") if name in ours else []
    return found


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
    strict = {
        name: value
        for name, value in node.items()
        if not name.startswith("x-kubernetes") and name not in ("description", "default", "nullable")
    }
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
