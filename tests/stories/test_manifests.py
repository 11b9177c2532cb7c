"""infra/clusters, infra/images and the scripts of infra/jobs, without a cluster: what is written is what they take.

Field names of ray.io/v1 are those of KubeRay 1.7.0 (ray-project/kuberay: docs/reference/api.md); those of pods, jobs
and services are the Kubernetes API's, as its Python client 37 has them. Of each type, what a manifest here may need.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "infra" / "clusters").glob("*.yaml"))
SCRIPTS = sorted(itertools.chain((ROOT / "infra" / "jobs").iterdir(), [ROOT / ".ci" / "run"]))
DOCKERFILE = (ROOT / "infra" / "images" / "Dockerfile").read_text()

# Type: {field: type of its value, or of its items}. "" is any value; a "!" marks what is required.
RESOURCES = {"requests": "", "limits": ""}
SCHEMA: dict[str, dict[str, str]] = {
    "RayCluster": {"apiVersion!": "", "kind!": "", "metadata!": "Metadata", "spec!": "RayClusterSpec"},
    "RayJob": {"apiVersion!": "", "kind!": "", "metadata!": "Metadata", "spec!": "RayJobSpec"},
    "Job": {"apiVersion!": "", "kind!": "", "metadata!": "Metadata", "spec!": "JobSpec"},
    "Service": {"apiVersion!": "", "kind!": "", "metadata!": "Metadata", "spec!": "ServiceSpec"},
    "Metadata": dict.fromkeys(["name", "namespace", "labels", "annotations"], ""),
    "RayJobSpec": dict.fromkeys(
        [
            *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "entrypointNumCpus", "entrypointNumGpus"),
            *("entrypointResources", "jobId", "managedBy", "metadata", "preRunningDeadlineSeconds", "runtimeEnvYAML"),
            *("shutdownAfterJobFinishes", "submissionMode", "suspend", "ttlSecondsAfterFinished"),
        ],
        "",
    )
    | {"entrypoint!": "", "rayClusterSpec!": "RayClusterSpec", "submitterPodTemplate": "PodTemplate"}
    | {"submitterConfig": "SubmitterConfig"},
    "SubmitterConfig": {"backoffLimit": ""},
    "RayClusterSpec": dict.fromkeys(["enableInTreeAutoscaling", "headServiceAnnotations", "managedBy", "suspend"], "")
    | {"rayVersion!": "", "authOptions!": "AuthOptions", "autoscalerOptions": "AutoscalerOptions"}
    | {"headGroupSpec!": "HeadGroup", "workerGroupSpecs!": "WorkerGroup"},
    "AuthOptions": {"mode!": "", "secretName": "", "enableK8sTokenAuth": ""},
    "AutoscalerOptions": dict.fromkeys(
        ["idleTimeoutSeconds", "image", "imagePullPolicy", "upscalingMode", "version"], ""
    )
    | {"resources": "Resources", "securityContext": "SecurityContext", "env": "Variable", "envFrom": "Variables"},
    "HeadGroup": {"rayStartParams": "", "serviceType": "", "enableIngress": "", "template!": "PodTemplate"},
    "WorkerGroup": dict.fromkeys(["idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts", "replicas"], "")
    | {"groupName!": "", "rayStartParams": "", "template!": "PodTemplate"},
    "JobSpec": dict.fromkeys(
        [
            *("activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "completionMode", "completions"),
            *("parallelism", "podReplacementPolicy", "suspend", "ttlSecondsAfterFinished"),
        ],
        "",
    )
    | {"template!": "PodTemplate"},
    "ServiceSpec": dict.fromkeys(["clusterIP", "ports", "publishNotReadyAddresses", "selector", "type"], ""),
    "PodTemplate": {"metadata": "Metadata", "spec!": "PodSpec"},
    "PodSpec": dict.fromkeys(
        [
            *("affinity", "imagePullSecrets", "nodeSelector", "priorityClassName", "restartPolicy", "runtimeClassName"),
            *("serviceAccountName", "subdomain", "terminationGracePeriodSeconds", "tolerations"),
            "topologySpreadConstraints",
        ],
        "",
    )
    | {"containers!": "Container", "securityContext!": "PodSecurity", "volumes": "Volume"},
    "PodSecurity": dict.fromkeys(["fsGroup", "runAsGroup", "runAsNonRoot!", "runAsUser", "seccompProfile"], ""),
    "Container": {"name!": "", "image!": "", "imagePullPolicy": "", "command": "", "args": "", "workingDir": ""}
    | {"env": "Variable", "envFrom": "Variables", "ports": "Port", "resources!": "Limited", "volumeMounts": "Mount"}
    | {"securityContext!": "SecurityContext"},
    "SecurityContext": {"allowPrivilegeEscalation!": "", "capabilities": "", "readOnlyRootFilesystem": ""},
    "Variable": {"name!": "", "value": "", "valueFrom": ""},
    "Variables": {"secretRef": "Named", "configMapRef": "Named"},
    "Named": {"name!": ""},
    "Port": {"containerPort!": "", "name": "", "protocol": ""},
    "Resources": RESOURCES,
    "Limited": {f"{name}!": "" for name in RESOURCES},
    "Mount": {"name!": "", "mountPath!": "", "readOnly": "", "subPath": ""},
    "Volume": {"name!": "", "emptyDir": "EmptyDir", "secret": "", "persistentVolumeClaim": ""},
    "EmptyDir": {"medium": "", "sizeLimit": ""},
}
VERSIONS = {"RayCluster": "ray.io/v1", "RayJob": "ray.io/v1", "Job": "batch/v1", "Service": "v1"}


def documents() -> list[tuple[str, dict[str, Any]]]:
    return [(path.name, each) for path in MANIFESTS for each in yaml.safe_load_all(path.read_text())]


def complaints(kind: str, value: Any, place: str) -> Iterator[str]:
    if not kind:
        return
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from complaints(kind, item, f"{place}[{number}]")
        return
    fields = {name.rstrip("!"): inner for name, inner in SCHEMA[kind].items()}
    yield from (f"{place} has no field {name!r}" for name in value.keys() - fields.keys())
    required = {name[:-1] for name in SCHEMA[kind] if name.endswith("!")}
    yield from (f"{place} lacks {name!r}" for name in required - value.keys())
    for name in value.keys() & fields.keys():
        yield from complaints(fields[name], value[name], f"{place}.{name}")


def clusters() -> list[tuple[str, dict[str, Any]]]:
    specs = [(name, document["spec"]) for name, document in documents() if document["apiVersion"] == "ray.io/v1"]
    return [(name, spec.get("rayClusterSpec", spec)) for name, spec in specs]


def pods() -> list[tuple[str, dict[str, Any]]]:
    found = [
        (name, document["spec"]["template"]["spec"]) for name, document in documents() if document["kind"] == "Job"
    ]
    for name, spec in clusters():
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        found += [(name, group["template"]["spec"]) for group in groups]
    return found


@pytest.mark.parametrize(("name", "document"), documents(), ids=[f"{n}-{d['kind']}" for n, d in documents()])
def test_a_manifest_has_the_fields_of_its_kind(name, document):
    assert document["apiVersion"] == VERSIONS[document["kind"]]
    assert not list(complaints(document["kind"], document, name))


def test_a_misspelt_or_missing_field_is_noticed():
    wrong = yaml.safe_load((ROOT / "infra/clusters/raycluster.yaml").read_text())
    wrong["spec"]["workerGroupSpecs"][0]["minReplica"] = wrong["spec"]["workerGroupSpecs"][0].pop("minReplicas")
    del wrong["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    assert sorted(complaints("RayCluster", wrong, "it")) == [
        "it.spec.headGroupSpec.template.spec.containers[0] lacks 'image'",
        "it.spec.workerGroupSpecs[0] has no field 'minReplica'",
    ]


def test_clusters_have_the_locks_ray_and_ask_for_a_token():
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    for name, spec in clusters():
        assert spec["rayVersion"] == locked[1], name
        assert spec["authOptions"] == {"mode": "token"}, name
        assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}, f"{name}: tasks would run on the head"
        assert all(isinstance(value, str) for value in spec["headGroupSpec"]["rayStartParams"].values())
        for group in spec["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_a_ray_job_cleans_up_after_itself():
    for name, document in documents():
        if document["kind"] == "RayJob":
            spec = document["spec"]
            assert spec["shutdownAfterJobFinishes"] is True, name
            assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode")
            assert isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict)


def test_pods_run_the_one_image_as_its_user_within_limits():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f":{version} ." in DOCKERFILE
    tag = re.search(r"--tag (\S+)", DOCKERFILE)
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    workdir = re.search(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE)
    assert tag
    assert user
    assert workdir
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert str(pod["securityContext"]["runAsUser"]) == user[1], name
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["image"] == tag[1], name
            assert container.get("workingDir", workdir[1]) == workdir[1], name
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_credentials_come_from_a_secret_and_stand_in_no_manifest():
    for name, pod in pods():
        for container in pod["containers"]:
            assert container["envFrom"] == [{"secretRef": {"name": "antidote-s3"}}], name
    for path in MANIFESTS:
        assert not re.search(r"AWS_(SECRET|ACCESS|SESSION)|auth_token|RAY_AUTH_TOKEN", path.read_text()), path


def test_the_nodes_of_the_torchrun_job_agree_on_how_many_they_are_and_where_to_meet():
    service, job = yaml.safe_load_all((ROOT / "infra/clusters/torchrun-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    name, nodes = job["metadata"]["name"], job["spec"]["completions"]
    port = container["ports"][0]["containerPort"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["parallelism"] == nodes
    assert f"--nnodes={nodes}" in container["command"]
    assert f"--rdzv-endpoint={name}-0.{service['metadata']['name']}:{port}" in container["command"]
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}


def test_the_image_gets_what_it_needs_and_the_context_holds_it():
    copied = [word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(copied) == {*packages, "requirements.lock", "pyproject.toml", "LICENSE", "README.md"}
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored, f"COPY {source} finds nothing: .dockerignore keeps it out"
    extras = re.findall(r"--extra ([\w-]+)", DOCKERFILE)
    assert set(extras) <= set(project["project"]["optional-dependencies"])
    assert project["project"]["readme"] in copied, "the package cannot be built without it"


def test_the_lifecycle_rule_is_one_that_a_bucket_takes_and_lets_nothing_expire(moto_s3):
    rules = json.loads((ROOT / "infra/clusters/lifecycle.json").read_text())
    bucket = moto_s3.make_bucket("with-a-rule").removeprefix("s3://")
    moto_s3.client().put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    (kept,) = moto_s3.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert kept["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert not any("Expiration" in name for name in kept)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound_bash(path):
    assert path.stat().st_mode & 0o111, f"{path} cannot be executed"
    assert "\nset -euo pipefail\n" in path.read_text()
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0
    if shutil.which("shellcheck") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("shellcheck is not installed: make services")
    # SC2086: $BOOK, $TRAIN and $SUBMIT are several words on purpose
    done = subprocess.run(["shellcheck", "--exclude=SC2086", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.suffix == ".sbatch"], ids=lambda path: path.name)
def test_a_slurm_script_can_come_back_and_touches_no_ray_but_its_own(path):
    text = path.read_text()
    for line in ("#SBATCH --requeue", "#SBATCH --open-mode=append", "#SBATCH --signal=B:USR1@300"):
        assert f"\n{line}\n" in text
    assert "trap again USR1" in text
    commands = "\n".join(line.split(" #")[0] for line in text.splitlines() if not line.startswith("#"))
    assert not re.search(r"ray stop|pkill|killall", commands)
