"""`cluster/` fits Kubernetes, KubeRay, Ray and our own commands; what is broken is found."""

import json
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import jsonschema
import manifests
import pytest
import typer
import yaml
from typer.testing import CliRunner

from pix2pix import cli
from pix2pix.settings import Settings

ROOT = Path(__file__).parent.parent
RAYJOBS = ("train.yaml", "denoise.yaml")
KUBERNETES = ("namespace.yaml", "nightly.yaml", "monitor.yaml", *RAYJOBS)
JOBS = {"train": cli.train, "denoise": cli.denoise}


def groups(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def container(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]["containers"][0]


def program(words: list[str]) -> typer.Typer:
    """Our command that a command line begins with."""
    assert words[0] == "python"
    path = Path(words[1])
    assert path.parent.name == "jobs"
    assert (ROOT / "jobs" / path.name).is_file()
    alone = typer.Typer()
    alone.command()(JOBS[path.stem])
    return alone


@pytest.mark.parametrize("name", KUBERNETES)
def test_every_object_fits_its_schema_and_our_rules(name: str) -> None:
    found = {thing["kind"]: manifests.problems(thing) for thing in manifests.documents(name)}
    assert found
    assert {kind: problems for kind, problems in found.items() if problems} == {}


def test_all_kinds_of_objects_are_there() -> None:
    kinds = {thing["kind"] for name in KUBERNETES for thing in manifests.documents(name)}
    assert kinds == {
        "Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "Role", "RoleBinding",
        "CronJob", "RayJob", "PodMonitor",
    }  # fmt: skip


Breaking = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("breaking", "problem"),
    [
        (lambda job: job["spec"].update(shutdownAfterJobFinish=True), "shutdownAfterJobFinish"),
        (lambda job: job["spec"].update(backoffLimit="1"), "not of type 'integer'"),
        (lambda job: job["spec"].update(submissionMode="K8sMode"), "is not one of"),
        (lambda job: job["metadata"].update(name="x" * 48), "does not match"),
        (lambda job: groups(job)[0].update(rayStartParams={"num-cpus": 0}), "'string'"),
        (lambda job: groups(job)[1].update(minReplica=1), "minReplica"),
        (lambda job: groups(job)[1].update(minReplicas=99), "between minReplicas and"),
        (lambda job: job["spec"]["rayClusterSpec"].pop("rayVersion"), "'rayVersion' is a required"),
        (lambda job: job["spec"]["rayClusterSpec"]["autoscalerOptions"].pop("securityContext"),
         "autoscaler: readOnlyRootFilesystem"),
        (lambda job: container(groups(job)[1]).update(imagePullPolice="Always"), "imagePullPolice"),
        (lambda job: container(groups(job)[1]).update(ports=[{"containerPort": "http"}]),
         "'http' is not"),
        (lambda job: container(groups(job)[1])["resources"]["limits"].update(cpu="3500m"),
         "num-cpus 4 of a container with 3500m CPUs"),
        (lambda job: container(groups(job)[1])["resources"]["limits"].update(memory="6Gi"),
         "7.0 GB of memory don't fit into 6Gi"),
        (lambda job: groups(job)[1]["rayStartParams"].update({"object-store-memory": "5000000000"}),
         "11.0 GB of memory don't fit into 10Gi"),
        (lambda job: groups(job)[0]["rayStartParams"].update({"num-cpus": "2"}), "head takes work"),
        (lambda job: groups(job)[0].update(serviceType="LoadBalancer"), "dashboard is exposed"),
        (lambda job: groups(job)[0].update(enableIngress=True), "dashboard is exposed"),
        (lambda job: job["spec"].update(shutdownAfterJobFinishes=False), "outlives its job"),
        (lambda job: container(groups(job)[1]).update(image="pix2pix:latest"), "may change"),
        (lambda job: container(groups(job)[1]).update(image="here.org:80/pix2pix"), "may change"),
        (lambda job: container(groups(job)[1])["securityContext"].pop("capabilities"),
         "capabilities must be"),
        (lambda job: groups(job)[0]["template"]["spec"].pop("volumes"), "no volume tmp"),
        (lambda job: groups(job)[0]["template"]["spec"].update(securityContext={"fsGroup": 1}),
         "may run as root"),
        (lambda job: container(groups(job)[1])["env"].append(
            {"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}),
         "AWS_SECRET_ACCESS_KEY is given by value"),
        (lambda job: job["spec"].update(entrypoint="python x.py s3://me:secret@bucket/a"),
         "looks like a credential"),
    ],
)  # fmt: skip
def test_a_broken_rayjob_is_found(breaking: Breaking, problem: str) -> None:
    (rayjob,) = manifests.documents("denoise.yaml")
    rayjob = json.loads(json.dumps(rayjob))  # shares nothing any more, so that one place is broken
    breaking(rayjob)
    assert any(problem in each for each in manifests.problems(rayjob)), manifests.problems(rayjob)


@pytest.mark.parametrize(
    ("name", "kind", "breaking", "problem"),
    [
        ("nightly.yaml", "CronJob", lambda job: job["spec"].update(concurrencyPolice="Forbid"),
         "concurrencyPolice"),
        ("nightly.yaml", "CronJob", lambda job: job["spec"].pop("schedule"), "'schedule'"),
        ("nightly.yaml", "CronJob",
         lambda job: job["spec"]["jobTemplate"]["spec"].update(backoffLimit="many"), "'many'"),
        ("nightly.yaml", "Role", lambda role: role["rules"][0].update(verb=["get"]), "verb"),
        ("nightly.yaml", "RoleBinding", lambda binding: binding.pop("roleRef"), "'roleRef'"),
        ("namespace.yaml", "ConfigMap", lambda config: config.update(dat={}), "dat"),
        ("namespace.yaml", "ConfigMap", lambda config: config["data"].update(SIZE=1), "1 is not"),
        ("namespace.yaml", "ConfigMap",
         lambda config: config["data"].update(AWS_SESSION_TOKEN="abc"), "given by value"),
        ("monitor.yaml", "PodMonitor",
         lambda monitor: monitor["spec"]["podMetricsEndpoints"][0].update(ports=1), "ports"),
        ("monitor.yaml", "PodMonitor", lambda monitor: monitor["spec"].pop("selector"),
         "'selector'"),
        ("namespace.yaml", "NetworkPolicy", lambda policy: policy["spec"].update(policyType=[]),
         "policyType"),
    ],
)  # fmt: skip
def test_another_broken_object_is_found(
    name: str, kind: str, breaking: Breaking, problem: str
) -> None:
    thing = next(each for each in manifests.documents(name) if each["kind"] == kind)
    breaking(thing)
    assert any(problem in each for each in manifests.problems(thing)), manifests.problems(thing)


@pytest.mark.parametrize("name", RAYJOBS)
def test_the_commands_are_ones_that_our_program_takes(name: str) -> None:
    (rayjob,) = manifests.documents(name)
    words = shlex.split(rayjob["spec"]["entrypoint"])
    assert Path(words[1]).stem == Path(name).stem
    # parses, and runs nothing
    context = typer.main.get_command(program(words)).make_context(words[1], words[2:])
    if name == "train.yaml":
        given = {item.name: context.params[item.name] for item in fields(Settings)}
        wanted = Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        assert wanted.batch % context.params["workers"] == 0
        (gpus,) = [group for group in groups(rayjob) if "num-gpus" in group["rayStartParams"]]
        assert context.params["workers"] == gpus["replicas"]
    else:  # one process to a pod of four CPUs: the job may fill all that the autoscaler may bring
        (workers,) = groups(rayjob)[1:]
        assert workers["rayStartParams"]["num-cpus"] == "4"
        assert context.params["max_actors"] == workers["maxReplicas"]


def test_an_option_that_our_program_lacks_is_found() -> None:
    words = shlex.split("python /opt/pix2pix/jobs/denoise.py s3://a/b s3://c/d --check-point best")
    assert CliRunner().invoke(program(words), words[2:]).exit_code == 2


def _taken_by_ray_start(words: list[str]) -> None:
    from ray.scripts import scripts

    scripts.start.make_context("start", words)


@pytest.mark.parametrize("name", RAYJOBS)
def test_ray_takes_the_parameters_of_every_group(name: str) -> None:
    for group in groups(manifests.documents(name)[0]):
        _taken_by_ray_start([f"--{key}={value}" for key, value in group["rayStartParams"].items()])


def test_a_parameter_that_ray_lacks_is_found() -> None:
    with pytest.raises(click.NoSuchOption):
        _taken_by_ray_start(["--num-cpu=4"])


def test_one_version_of_ray_and_of_the_image_everywhere() -> None:
    lock = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split())
    images = set()
    for name in RAYJOBS:
        (rayjob,) = manifests.documents(name)
        assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == lock["ray"]
        images |= {container(group)["image"] for group in groups(rayjob)}
    cron = manifests.documents("nightly.yaml")[-1]["spec"]["jobTemplate"]["spec"]["template"]
    images |= {container({"template": cron})["image"], _aws()["docker"]["image"]}
    image = f"images.example.com/pix2pix:{version('pix2pix')}"
    assert images == {image, f"{image}-gpu"}


def test_nights_cannot_overlap_and_the_account_may_only_what_it_needs() -> None:
    _, role, binding, cron = manifests.documents("nightly.yaml")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == binding["subjects"][0]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "delete", "create"}
    assert pod["containers"][0]["args"][0] == "/etc/pix2pix/denoise.yaml"
    (job,) = manifests.documents("denoise.yaml")
    tries = job["spec"]["backoffLimit"] + 1
    assert (
        cron["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
        >= tries * job["spec"]["activeDeadlineSeconds"]
    )


def _aws() -> dict[str, Any]:
    return yaml.safe_load((manifests.FOLDER / "aws.yaml").read_text())


def _checked_by_ray(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does before it asks AWS for anything; the schema is the one in Ray's wheel."""
    from ray.autoscaler._private import util

    util.validate_config(util.prepare_config(config))
    return config


def test_ray_up_takes_the_cluster_on_aws() -> None:
    config = _checked_by_ray(_aws())
    assert list(manifests._secrets(config)) == []
    for when in ("head_start_ray_commands", "worker_start_ray_commands"):
        words = shlex.split(config[when][-1].replace("$RAY_HEAD_IP", "10.0.0.1"))
        assert words[:2] == ["ray", "start"]
        _taken_by_ray_start(words[2:])
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    kinds = config["available_node_types"]
    assert (kinds["head"]["resources"], kinds["denoise"]["resources"]) == ({"CPU": 0}, {"CPU": 4})


@pytest.mark.parametrize(
    "breaking",
    [
        lambda config: config.update(max_worker=3),
        lambda config: config["available_node_types"]["denoise"].update(min_worker=1),
        lambda config: config.update(idle_timeout_minutes="5"),
        lambda config: config["docker"].update(images="x"),
        lambda config: config["available_node_types"]["head"]["resources"].update(CPU=0.5),
        lambda config: config.update(head_node_type="heads"),
    ],
)
def test_a_broken_cluster_on_aws_is_refused(breaking: Breaking) -> None:
    config = _aws()
    breaking(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        _checked_by_ray(config)


def test_the_runtime_env_sends_our_code_and_nothing_else(tmp_path: Path) -> None:
    from ray._private.runtime_env import packaging
    from ray.runtime_env import RuntimeEnv

    wanted = yaml.safe_load((manifests.FOLDER / "runtime-env.yaml").read_text())
    RuntimeEnv(**wanted)  # knows no other fields
    packaging.create_package(
        str(ROOT), tmp_path / "package.zip", include_gitignore=True, excludes=wanted["excludes"]
    )
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        names = [name for name in package.namelist() if not name.endswith("/")]
        sent_bytes = sum(each.compress_size for each in package.infolist())
    assert {Path(name).parts[0] for name in names} >= {"pix2pix", "jobs"}
    folders = {Path(name).parts[0] for name in names if "/" in name}
    assert folders == {"pix2pix", "jobs", "cluster"}
    assert any(name.endswith("generator.weights.h5") for name in names)
    assert sent_bytes < 20e6
