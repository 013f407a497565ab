"""JobSets and Kueue's queues, without a cluster: the APIs' schemas, and the environment of pods."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from a2fjax.errors import InputError
from launch.jobs.spec import Resources
from launch.schedulers.kubernetes import jobset, manifests
from launch.schedulers.kubernetes import options as option_lib
from launch.schedulers.kubernetes.jobset import JobSetRun

ROOT = Path(__file__).parents[2]
DIGEST = "example.org/a2fjax@sha256:" + "0" * 64
WORDS = ("with space", "$(HOME)", "$$", "ü\nü", "")


def closed(schema):
    """A schema that refuses what it does not list."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
        for value in schema.values():
            closed(value)
    elif isinstance(schema, list):
        for value in schema:
            closed(value)
    return schema


@pytest.fixture(scope="module")
def schema():
    models = pytest.importorskip(
        "kubeflow_trainer_api.models.jobset_v1alpha2_job_set",
        reason="pip install kubeflow-trainer-api",
    )
    found = closed(models.JobsetV1alpha2JobSet.model_json_schema(by_alias=True))
    # The package's classes wrap these two, which are one of several plain types in the API.
    quantity = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?(m|k|[KMGTP]i?)?$"}
    either = {"type": ["string", "integer"]}
    found["$defs"]["IoK8sApimachineryPkgApiResourceQuantity"] = quantity
    found["$defs"]["IoK8sApimachineryPkgUtilIntstrIntOrString"] = either
    rule = found["$defs"]["JobsetV1alpha2FailurePolicyRule"]["properties"]
    rule["action"]["enum"] = ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
    rule["name"]["pattern"] = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
    return jsonschema.Draft202012Validator(found)


def options(**given):
    return option_lib.check({"image": DIGEST, "volume": ["scans:/data"], **given})


def run(nodes=4, gpus=8, **given):
    sizes = {k: given.pop(k) for k in ("cpus", "mem_mib") if k in given}
    values = {"name": "a2f-base", "command": ("a2fjax", "train", *WORDS), "directory": "/data/work"}
    resources = Resources(nodes=nodes, gpus=gpus, **sizes)
    return JobSetRun(**{**values, "resources": resources, **given})


FULL = {
    "namespace": "faces",
    "queue": "faces",
    "priority": "high",
    "kueue_priority": "urgent",
    "shm": "64G",
    "max_restarts": 7,
    "node_selector": ["cloud/pool=h100"],
    "toleration": ["nvidia.com/gpu", "pool=faces:NoSchedule", "spot=:NoExecute"],
    "pull_secret": ["registry"],
    "service_account": "trainer",
    "rdma": ["rdma/hca=8"],
    "run_as_user": 1000,
    "run_as_group": 100,
    "fs_group": 2000,
    "secrets": ["wandb"],
    "secret_keys": {"HF_TOKEN": "hub/token"},
}
SIZES = {"cpus": 32, "mem_mib": 200 * 1024}


@pytest.mark.parametrize(
    ("given", "what"), [({}, {}), (FULL, {**SIZES, "environment": {"A": "$x"}})]
)
def test_manifests_are_valid(schema, given, what):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    text = manifests.to_yaml([jobset.manifest(run(**what), options(**given))])
    made = yaml.safe_load(text)
    assert made == jobset.manifest(run(**what), options(**given)) and "&id" not in text
    schema.validate(made)
    template = made["spec"]["replicatedJobs"][0]["template"]
    inner = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **template}
    for version in ("1.31", "1.37"):
        validate.validate(inner, version, strict=True)


def _misspelt(made):
    work = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    container = work["template"]["spec"]["containers"][0]
    container["imagePullPolcy"] = "Always"


def _restarts(made):
    made["spec"]["failurePolicy"]["maxRestart"] = 3


def _text(made):
    made["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelism"] = "4"


def _quantity(made):
    made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0][
        "resources"
    ]["requests"]["cpu"] = "4 cores"


def _action(made):
    made["spec"]["failurePolicy"]["rules"][0]["action"] = "Retry"


def _label(made):
    made["metadata"]["lables"] = {}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_misspelt, "imagePullPolcy"),
        (_restarts, "maxRestart"),
        (_text, "'4'"),
        (_label, "lables"),
        (_quantity, "4 cores"),
        (_action, "Retry"),
    ],
)
def test_the_schema_finds_mistakes(schema, change, where):
    made = copy.deepcopy(jobset.manifest(run(), options()))
    change(made)
    leaves, errors = [], list(schema.iter_errors(made))
    while errors:
        error = errors.pop()
        errors += error.context or []
        leaves.append(error.message)
    assert any(where in message for message in leaves), leaves


def pod(made):
    return made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_ranks_and_coordinator_are_in_the_environment():
    made = jobset.manifest(run(), options())
    work = made["spec"]["replicatedJobs"][0]
    assert work["replicas"] == 1 and work["template"]["spec"]["completionMode"] == "Indexed"
    assert work["template"]["spec"]["parallelism"] == work["template"]["spec"]["completions"] == 4
    env = {e["name"]: e.get("value", e.get("valueFrom")) for e in pod(made)["containers"][0]["env"]}
    assert env == {
        "A2F_COORDINATOR": "a2f-base-w-0-0.a2f-base:55527",
        "A2F_NUM_PROCESSES": "4",
        "A2F_LOCAL_DEVICES": "8",
        "A2F_PROCESS_ID": {
            "fieldRef": {
                "fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"
            }
        },
    }
    limits = pod(made)["containers"][0]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": "8"}
    assert pod(made)["containers"][0]["resources"]["requests"] == {
        "cpu": "64",
        "memory": f"{512 * 1024}Mi",
    }
    on_cpus = pod(jobset.manifest(run(gpus=0), options()))["containers"][0]
    assert "limits" not in on_cpus["resources"]
    assert "A2F_LOCAL_DEVICES" not in {e["name"] for e in on_cpus["env"]}


def test_shared_memory_is_as_large_as_asked():
    found = pod(jobset.manifest(run(), options(shm="64G")))
    volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "65536Mi"}}
    assert volume in found["volumes"] and found["terminationGracePeriodSeconds"] == 300
    assert {"name": "shm", "mountPath": "/dev/shm"} in found["containers"][0]["volumeMounts"]


def test_failures_that_count():
    spec = jobset.manifest(run(), options(max_restarts=3))["spec"]
    work = spec["replicatedJobs"][0]["template"]["spec"]
    rules = [
        (r["action"], r.get("onExitCodes", {}).get("values"))
        for r in work["podFailurePolicy"]["rules"]
    ]
    assert rules == [("FailJob", [2]), ("Ignore", [75, 143]), ("Ignore", None)]
    # podFailurePolicy is allowed with these only.
    assert work["template"]["spec"]["restartPolicy"] == "Never"
    assert work["podReplacementPolicy"] == "Failed" and work["backoffLimit"] == 0
    assert spec["failurePolicy"]["maxRestarts"] == 3
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_secrets_are_named_and_never_written():
    container = pod(jobset.manifest(run(), options(**FULL)))["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}]
    token = {e["name"]: e for e in container["env"]}["HF_TOKEN"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


def test_queues_and_priorities():
    made = jobset.manifest(run(), options(**FULL))
    labels = made["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "faces" and made["spec"]["suspend"] is True
    assert labels["kueue.x-k8s.io/priority-class"] == "urgent"
    assert pod(made)["priorityClassName"] == "high"
    assert "suspend" not in jobset.manifest(run(), options())["spec"]
    assert jobset.manifest(run(), options(suspend=True))["spec"]["suspend"] is True


def test_names_are_as_long_as_a_pod_can_be_named():
    for nodes in (1, 11, 1000):
        name = "a" * jobset.longest_name(nodes)
        jobset.manifest(run(name=name, nodes=nodes), options())
        assert len(f"{name}-w-0-{nodes - 1}-abcde") == 63
        with pytest.raises(InputError, match="at most"):
            jobset.manifest(run(name=name + "a", nodes=nodes), options())


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"command": ()}, "no command"),
        ({"name": "1st"}, "a letter first"),
        ({"name": "A"}, "lower-case"),
        ({"directory": "data"}, "absolute path"),
        ({"environment": {"A B": "1"}}, "'A B'"),
        ({"environment": {"A2F_PROCESS_ID": "1"}}, "set by the launcher"),
        ({"environment": {"HF_TOKEN": "1"}}, "a value and a secret"),
        ({"directory": "/elsewhere"}, "lies on no volume"),
    ],
)
def test_wrong_runs_are_named(given, word):
    with pytest.raises(InputError, match=word):
        jobset.manifest(run(**given), options(secret_keys={"HF_TOKEN": "hub/token"}))
    with pytest.raises(InputError, match="read-only"):
        jobset.manifest(run(), options(volume=["scans:/data:ro"]))


def test_a_tag_is_taken_where_it_is_asked_for():
    made = jobset.manifest(run(), options(image="example.org/a2fjax:1.2", allow_tag=True))
    assert pod(made)["containers"][0]["image"] == "example.org/a2fjax:1.2"


def _check_kueue(made):
    facts = closed(json.loads((Path(__file__).parent / "schemas" / "kueue.json").read_text()))
    assert made["apiVersion"] == "kueue.x-k8s.io/v1beta2"
    extra = set(made) - {"apiVersion", "kind", "metadata", "spec"}
    if made["kind"] == "WorkloadPriorityClass":
        assert extra <= {"value", "description"} and isinstance(made["value"], int)
        return
    assert not extra
    kind = {"$ref": f"#/$defs/{made['kind']}", "$defs": facts["$defs"]}
    jsonschema.validate(made["spec"], kind)


def test_the_queues_of_the_documents_are_valid():
    made = list(yaml.safe_load_all((ROOT / "docs" / "kueue" / "queues.yaml").read_text()))
    assert [m["kind"] for m in made] == [
        "ResourceFlavor",
        "ClusterQueue",
        "LocalQueue",
        "WorkloadPriorityClass",
    ]
    for one in made:
        _check_kueue(one)
    flavor, cluster, local, _ = made
    (group,) = cluster["spec"]["resourceGroups"]
    assert local["spec"]["clusterQueue"] == cluster["metadata"]["name"]
    assert group["flavors"][0]["name"] == flavor["metadata"]["name"]
    # The API's own rule: as many resources of a flavor as are covered, in this order.
    assert [r["name"] for r in group["flavors"][0]["resources"]] == group["coveredResources"]
    cluster["spec"]["queueingStategy"] = "StrictFIFO"
    with pytest.raises(jsonschema.ValidationError, match="queueingStategy"):
        _check_kueue(cluster)
