"""What is wrong with the YAML of `cluster/`: by schemas, and by rules that no schema knows."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

FOLDER = Path(__file__).parent.parent / "cluster"
KUBERNETES = ("1.31", "1.37")  # the oldest that nightly.yaml works with, and the newest known
RAY_BYTES = 1.0e9  # what Ray's own processes take of a pod
CPU_BYTES = 1.25e9  # per CPU that Ray hands out, at least: a process that trains or denoises has 4
UNITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3}
# what the Prometheus Operator's API reference says of a PodMonitor, as far as we use it
PODMONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PodMonitor"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["selector", "podMetricsEndpoints"],
            "additionalProperties": False,
            "properties": {
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "matchLabels": {"type": "object"},
                        "matchExpressions": {
                            "type": "array",
                            "items": {"type": "object", "required": ["key", "operator"]},
                        },
                    },
                },
                "podMetricsEndpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string"},
                            "interval": {"type": "string", "pattern": "^[0-9]+(s|m)$"},
                        },
                    },
                },
            },
        },
    },
}
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|://[^/\s]+:[^/\s]+@")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def amount(quantity: str | int) -> float:
    """What a quantity of Kubernetes' says: 0.2 for "200m", 8589934592 for "8Gi"."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity)).groups()
    return float(number) * UNITS[unit]


def problems(thing: dict[str, Any]) -> list[str]:
    """A sentence for each thing that is wrong with an object; none, and it is right."""
    if thing.get("kind") == "RayJob":
        found = _of_rayjob(thing)
    elif thing.get("kind") == "PodMonitor":
        errors = jsonschema.Draft7Validator(PODMONITOR).iter_errors(thing)
        found = [f"{error.json_path}: {error.message[:200]}" for error in errors]
    else:
        found = list(_of_kubernetes(thing))
        if thing.get("kind") == "CronJob" and not found:
            found += _of_pod(thing["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    return found + list(_secrets(thing))


def _of_kubernetes(thing: dict[str, Any]) -> Iterator[str]:
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError,
        ) as error:
            yield f"Kubernetes {version}: {str(error).partition(chr(10))[0]}"


def _of_rayjob(rayjob: dict[str, Any]) -> list[str]:
    schema = json.loads((FOLDER / "kuberay-schema.json").read_text())
    errors = jsonschema.Draft7Validator(schema).iter_errors(rayjob)
    found = [f"{error.json_path}: {error.message[:200]}" for error in errors]
    if found:
        return found
    spec, cluster = rayjob["spec"], rayjob["spec"]["rayClusterSpec"]
    head, groups = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    templates = [spec["submitterPodTemplate"], *(each["template"] for each in [head, *groups])]
    for template in templates:
        whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}}
        found += _of_kubernetes({**whole, "template": template})
    if found:
        return found
    found += [problem for template in templates for problem in _of_pod(template["spec"])]
    found += [problem for group in [head, *groups] for problem in _of_ray_pod(group)]
    found += list(_of_head(head, cluster, spec))
    if options := cluster.get("autoscalerOptions"):
        found += _of_container({"name": "autoscaler", "image": "x:1", **options})
    return found


def _of_head(head: dict[str, Any], cluster: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    if head["rayStartParams"].get("num-cpus") != "0":
        yield "the head takes work"
    if head.get("serviceType") != "ClusterIP" or head.get("enableIngress"):
        yield "the dashboard is exposed"
    if not spec.get("shutdownAfterJobFinishes"):
        yield "the cluster outlives its job"
    if "activeDeadlineSeconds" not in spec:
        yield "a job that hangs never ends"
    for group in cluster.get("workerGroupSpecs", []):
        if not group["minReplicas"] <= group.get("replicas", 0) <= group["maxReplicas"]:
            yield f"{group['groupName']}: replicas must lie between minReplicas and maxReplicas"


def _of_ray_pod(group: dict[str, Any]) -> Iterator[str]:
    """Ray must not hand out more than Kubernetes lets the pod have."""
    name, start = group.get("groupName", "head"), group["rayStartParams"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    cpus, store = float(start["num-cpus"]), float(start["object-store-memory"])
    if cpus > amount(limits["cpu"]):
        yield f"{name}: num-cpus {cpus:g} of a container with {limits['cpu']} CPUs"
    if int(start.get("num-gpus", 0)) != int(limits.get("nvidia.com/gpu", 0)):
        yield f"{name}: num-gpus differs from the container's GPUs"
    needed = store + RAY_BYTES + CPU_BYTES * cpus
    if needed > amount(limits["memory"]):
        yield f"{name}: {needed / 1e9:.1f} GB of memory don't fit into {limits['memory']}"


def _of_pod(pod: dict[str, Any]) -> list[str]:
    found = []
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or not context.get("runAsUser"):
        found.append("the pod may run as root")
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("the pod has no seccomp profile")
    if context.get("fsGroup") is None and any("emptyDir" in each for each in pod["volumes"]):
        found.append("the pod can't write to its volumes")
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        found += _of_container(container)
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        found += [f"{container['name']}: no volume {name}" for name in sorted(mounted - volumes)]
    return found


def _of_container(container: dict[str, Any]) -> list[str]:
    found = []
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    wanted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    found += [f"{name} must be {value}" for name, value in wanted.items()
              if context.get(name) != value]  # fmt: skip
    if not re.search(r":[^:/]+$", container["image"]) or container["image"].endswith(":latest"):
        found.append(f"image {container['image']} may change")
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for resource in ("cpu", "memory"):
        if resource not in requests or resource not in limits:
            found.append(f"no {resource} is requested, or none is the limit")
        elif amount(requests[resource]) > amount(limits[resource]):
            found.append(f"more {resource} is requested than allowed")
    return [f"{container['name']}: {problem}" for problem in found]


def _secrets(thing: Any) -> Iterator[str]:
    """Credentials that are written down, anywhere in an object."""
    if isinstance(thing, dict):
        if thing.get("kind") == "Secret":
            yield "a Secret doesn't belong into a file"
        if SECRET_NAME.search(str(thing.get("name", ""))) and "value" in thing:
            yield f"{thing['name']} is given by value"
        if thing.get("kind") == "ConfigMap":
            for name in filter(SECRET_NAME.search, thing.get("data", {})):
                yield f"{name} is given by value"
        for value in thing.values():
            yield from _secrets(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from _secrets(value)
    elif isinstance(thing, str) and SECRET_VALUE.search(thing):
        yield "something that looks like a credential"
