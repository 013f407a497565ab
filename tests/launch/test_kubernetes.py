"""Manifests of arrays without a cluster: the API's schemas, and the commands of containers.

No cluster was at hand: what is shown here is that manifests are valid and that `kubectl`, for which
a program stands in, is asked for the right things.
"""

import json
import os
import subprocess
import sys

import pytest
import yaml

from a2fjax.errors import InputError
from launch import schedulers, submit
from launch.schedulers.kubernetes import indexed_job

WORDS = ["with space", "it's", "$(JOB_COMPLETION_INDEX)", "$$(X)", "$HOME", "`x`", "ü\nü", "$", ""]
IMAGE = ("--image", "x", "--allow-tag")
OPTIONS = {"image": "example.org/a2fjax@sha256:" + "0" * 64, "volume": ["scans:/data"]}


FULL = {
    "max_parallel": 16,
    "queue": "faces",
    "node_selector": ["pool=cpu"],
    "toleration": ["pool=cpu:NoSchedule"],
    "pull_secret": ["registry"],
    "service_account": "builder",
    "run_as_user": 1000,
    "secrets": ["hub"],
}


def expand(word: str, environment: dict[str, str]) -> str:
    """Expands a word as Kubernetes does: $$ is $, $(NAME) the value where there is one."""
    out, rest = "", word
    while rest:
        if rest.startswith("$$"):
            out, rest = out + "$", rest[2:]
        elif rest.startswith("$(") and ")" in rest:
            name, _, after = rest[2:].partition(")")
            out, rest = out + environment.get(name, f"$({name})"), after
        else:
            out, rest = out + rest[0], rest[1:]
    return out


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_manifests_are_valid(make_array, version):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    job = make_array("kubernetes", WORDS, 64, mem="8G", cpus=4, **FULL, **OPTIONS)
    text = schedulers.get("kubernetes").render(job)
    assert "&id" not in text  # aliases would be legal, and unreadable
    jobs = list(yaml.safe_load_all(text))
    assert [j["kind"] for j in jobs] == ["Job", "Job"]
    for job in jobs:
        validate.validate(job, version, strict=True)
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "faces"
        pod = job["spec"]["template"]["spec"]
        assert pod["imagePullSecrets"] and pod["tolerations"] and pod["nodeSelector"]
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "hub"}}]
    jobs[0]["spec"]["backofLimitPerIndex"] = 1
    with pytest.raises(validate.ValidationError):
        validate.validate(jobs[0], version, strict=True)


def test_every_index_runs_its_element_and_words_arrive_unchanged(make_array):
    job = make_array("kubernetes", ["/usr/bin/printf", "%s\\0", *WORDS], 5, **OPTIONS)
    parts, last = indexed_job.elements(job), indexed_job.finalize(job)
    assert parts["spec"]["completions"] == 5 and parts["spec"]["completionMode"] == "Indexed"

    def run(manifest, environment):
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        command = [expand(word, environment) for word in container["command"]]
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        return done.stdout.decode().split("\0")[:-1]

    seen = [run(parts, {"JOB_COMPLETION_INDEX": str(i)}) for i in range(5)]
    assert seen == [[*WORDS, "--part", f"{i}/5"] for i in range(1, 6)]
    assert run(last, {}) == [*WORDS, "--finish"]


def test_failures_that_count(make_array):
    job = make_array("kubernetes", ["x"], **OPTIONS)
    spec = indexed_job.elements(job)["spec"]
    assert spec["backoffLimitPerIndex"] == 2 and "maxFailedIndexes" not in spec
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    rules = {
        rule["action"] + str(rule.get("onExitCodes", {}).get("values", ""))
        for rule in spec["podFailurePolicy"]["rules"]
    }
    assert rules == {"Ignore", "FailIndex[2]", "Ignore[75, 143]"}


def test_names_fit_and_change_with_every_attempt(make_array):
    out = "/data/" + "A very long NAME ünd more " * 5
    job = make_array("kubernetes", ["x"], 10_000, out=out, chosen=[1, 10_000], **OPTIONS)
    name = indexed_job.elements(job)["metadata"]["name"]
    assert len(f"{name}-9999") <= 63
    assert name != indexed_job.finalize(job)["metadata"]["name"]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"image": None}, "--image"),
        ({"image": "a b"}, "--image"),
        ({"image": "x:1"}, "--allow-tag"),
        ({"namespace": "My_Space"}, "--namespace"),
        ({"volume": ["scans"]}, "CLAIM:/PATH"),
        ({"volume": ["scans:data"]}, "CLAIM:/PATH"),
        ({"volume": ["scans:/data:rx"]}, "CLAIM:/PATH"),
        ({"volume": ["a:/data", "b:/data"]}, "same path"),
        ({"volume": ["a:/"]}, "belongs to the container"),
        ({"volume": ["a:/dev/shm"]}, "belongs to the container"),
    ],
)
def test_wrong_options_are_named(make_array, given, word):
    with pytest.raises(InputError, match=word):
        make_array("kubernetes", ["x"], **{**OPTIONS, **given})


def build(*more, out="/data/out", source="/data/in"):
    start = ["build", source, "--out", out, "--scheduler", "kubernetes", *IMAGE]
    return submit.main([*start, *more])


def test_paths_must_lie_on_volumes(make_job, tmp_path, capsys):
    record = ["--record", str(tmp_path / "record"), "--dry-run"]
    assert build("--volume", "c:/data", *record) == 0
    assert build(*record) == 2
    assert "lies on no volume" in capsys.readouterr().err
    assert build("--volume", "c:/data:ro", *record) == 2
    assert "read-only" in capsys.readouterr().err
    assert build("--volume", "c:/data", "--volume", "r:/raw:ro", *record, source="/raw/x") == 0
    assert build("--volume", "c:/data", *record, out="/data/../etc/x") == 2
    assert build("--volume", "c:/data", *record, out="relative") == 2
    assert build("--volume", "c:/not", "--volume", "d:/data", "--dry-run", out="/not/here/out") == 2
    assert "--record" in capsys.readouterr().err
    assert not (tmp_path / "record").exists()


PROFILE = """
gpus = 8
cpus_per_node = 96
mem = "1T"
python = "/opt/venv/bin/python"
[environment]
SITE = "here"
[kubernetes]
image = "x"
allow_tag = true
volume = ["c:/data"]
queue = "gpu"
toleration = ["gpu"]
[arrays]
cpus = 2
[arrays.kubernetes]
queue = "cpu"
"""


@pytest.mark.parametrize("command", ["build", "cache"])
def test_the_profile_holds_for_arrays(tmp_path, capsys, command):
    profile = tmp_path / "site.toml"
    profile.write_text(PROFILE)
    words = {
        "build": ["/data/in", "--out", "/data/out"],
        "cache": ["/data/out", "--features", "whisper:/data/w"],
    }[command]
    where = ["--scheduler", "kubernetes", "--profile", str(profile), "--dry-run"]
    assert submit.main([command, *words, *where, "--record", str(tmp_path / "r")]) == 0
    elements, last = yaml.safe_load_all(capsys.readouterr().out)
    for one in (elements, last):
        assert one["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cpu"
        pod = one["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
        # The sizes of nodes for training are not those of elements.
        requests = {"cpu": "2", "memory": f"{8 * 1024}Mi"}
        assert container["resources"] == {"requests": requests}
        assert {"name": "SITE", "value": "here"} in container["env"]
        assert "/opt/venv/bin/python" in container["command"]


def test_a_dry_run_prints_manifests_that_kubectl_can_apply(tmp_path, capsys):
    words = ["--volume", "c:/data", "--record", str(tmp_path / "r"), "--dry-run"]
    assert build(*words) == 0
    out, err = capsys.readouterr()
    elements, last = yaml.safe_load_all(out)
    # Kubernetes would start the last command beside the elements.
    assert last["spec"]["suspend"] is True and "suspend" not in elements["spec"]
    assert f"kubectl patch job {last['metadata']['name']} -n default" in err
    assert build(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["elements"] == 64
    assert build("--volume", "c:/data", "--json") == 2
    assert "--json: is for --dry-run" in capsys.readouterr().err


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A program of this name that records its arguments and answers from a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "kubectl"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        f"here = pathlib.Path({str(folder)!r})\n"
        "with (here / 'asked').open('a') as f: f.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "jobs = json.loads((here / 'jobs').read_text())\n"
        "if 'get' in sys.argv: print(jobs.get(sys.argv[3].split('-')[-1], ''))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def answer(**jobs):
        status = {k: json.dumps({"status": v}) for k, v in jobs.items()}
        (folder / "jobs").write_text(json.dumps(status))

    answer()
    answer.asked = lambda: [json.loads(x) for x in (folder / "asked").read_text().splitlines()]
    return answer


def test_from_build_to_finish(make_job, tmp_path, kubectl, capsys):
    record = ["--record", str(tmp_path / "record")]
    assert build("--volume", "c:/data", "--elements", "5", "--namespace", "faces", *record) == 0
    assert kubectl.asked()[0][:2] == ["apply", "-f"]
    manifest = yaml.safe_load((tmp_path / "record" / "launch" / "elements.yaml").read_text())
    assert manifest["spec"]["completions"] == 5 and manifest["metadata"]["namespace"] == "faces"

    def status():
        capsys.readouterr()
        assert submit.main(["status", "/data/out", *record]) == 0
        return capsys.readouterr().out

    kubectl(elements={"active": 2, "completedIndexes": "0,2", "failedIndexes": "4"})
    out = status()
    assert "2 of 5 running: 2, 4" in out and "2 of 5 done" in out and "1 of 5 failed: 5" in out
    assert "finalize: waiting" in out
    again = build("--volume", "c:/data", *record)
    assert again == 2 and "run or wait" in capsys.readouterr().err

    ended = {"conditions": [{"type": "Failed", "status": "True"}]}
    kubectl(
        elements={"completedIndexes": "0-3", "failedIndexes": "4", **ended},
        finalize={"conditions": [{"type": "Complete", "status": "True"}]},
    )
    assert submit.main(["wait", "/data/out", "--poll", "0.01", *record]) == 0
    applied = [a for a in kubectl.asked() if a[0] == "apply"]
    assert [a[2].rpartition("/")[2] for a in applied] == ["elements.yaml", "finalize.yaml"]
    assert submit.main(["wait", "/data/out", "--poll", "0.01", *record]) == 0
    assert len([a for a in kubectl.asked() if a[0] == "apply"]) == 2
    assert submit.main(["logs", "/data/out", "--element", "5", *record]) == 0
    assert "job-completion-index=4" in kubectl.asked()[-1][3]
    assert submit.main(["retry", "/data/out", *record]) == 0
    names = yaml.safe_load((tmp_path / "record" / "launch" / "elements.yaml").read_text())[
        "metadata"
    ]
    assert names["name"].endswith("-2-elements")
    assert submit.main(["cancel", "/data/out", *record]) == 0
    assert kubectl.asked()[-1][0] == "delete"
