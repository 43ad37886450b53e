"""The Dockerfile and the JobSet match main.py, as far as that can be checked without a cluster."""

import math
import pathlib
import re
import tomllib

import pytest
import yaml

from cifar_jax import errors

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def jobset() -> dict:
    return yaml.safe_load((ROOT / "k8s" / "jobset.yaml").read_text())


@pytest.fixture
def job(jobset: dict) -> dict:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def test_bad_input_fails_the_jobset_and_any_other_failure_restarts_it(jobset: dict, job: dict):
    (rule,) = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [errors.BAD_INPUT],
    }
    # The policy sees an exit status only if nothing else retries the pod first.
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    policy = jobset["spec"]["failurePolicy"]
    (fatal,) = policy["rules"]
    assert (fatal["action"], fatal["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert policy["maxRestarts"] >= 10


def test_each_host_has_one_pod_with_all_of_its_chips(job: dict):
    pod = job["template"]["spec"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"] > 1
    assert math.prod(map(int, topology.split("x"))) == job["parallelism"] * chips


def test_the_pod_runs_on_spot_nodes(job: dict):
    pod = job["template"]["spec"]
    key = "cloud.google.com/gke-spot"
    assert pod["nodeSelector"][key] == "true"  # a string: Kubernetes refuses a bool
    assert {"key": key, "operator": "Equal", "value": "true", "effect": "NoSchedule"} in pod[
        "tolerations"
    ]


def test_the_arguments_are_valid_for_main_py(job: dict):
    arguments = dict(a.split("=", 1) for a in job["template"]["spec"]["containers"][0]["args"])
    assert (ROOT / arguments["--config"]).is_file()
    assert arguments["--workdir"].startswith("gs://")
    assert 'ENTRYPOINT ["python", "main.py"]' in (ROOT / "Dockerfile").read_text()


def test_the_image_uses_a_supported_python_and_existing_requirements():
    dockerfile = (ROOT / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r"^FROM python:3\.(\d+)", dockerfile, re.MULTILINE)
    least, beyond = map(int, re.findall(r"3\.(\d+)", project["requires-python"]))
    assert version and least <= int(version[1]) < beyond
    lists = re.findall(r"list=([\w.-]+)", dockerfile)
    assert len(lists) == 3 and all((ROOT / name).is_file() for name in lists)
    # EXTRA=cuda12 replaces cuda13 in this file.
    assert 'sed -i "s/cuda13/$EXTRA/" requirements/cuda.txt' in dockerfile
    assert "jax[cuda13]" in (ROOT / "requirements" / "cuda.txt").read_text()
