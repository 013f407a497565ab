"""The packages of docs/extending.md: installed, and run from training to the report."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = sorted(path.parent.name for path in HERE.glob("*/pyproject.toml"))
TEXT = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"\*\*`([^`]+)`\*\*\n\n```\w+\n(.*?)```", TEXT, re.S)


def test_the_text_is_the_packages_code():
    shown = dict(BLOCKS)
    for package in PACKAGES:
        for file in (HERE / package / package).glob("*.py"):
            assert shown.pop(f"{package}/{file.name}") == file.read_text(), file
    assert shown == {"pyproject.toml": (HERE / "a2f_example_loss" / "pyproject.toml").read_text()}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_recipe_has_at_most_40_lines_of_code(package):
    files = (HERE / package / package).glob("*.py")
    lines = [line for file in files for line in file.read_text().splitlines() if line.strip()]
    assert len(lines) <= 40


def test_the_packages_are_made_alike():
    def general(package):
        text = (HERE / package / "pyproject.toml").read_text()
        kind = package.removeprefix("a2f_example_")
        text = re.sub("description = .*", "", text)
        return re.sub(rf"\b(a2f.example.)?{kind}\b", r"\1KIND", text)

    assert len({general(package) for package in PACKAGES}) == 1


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder that the packages are installed in, as `pip install` does."""
    folder = tmp_path_factory.mktemp("site")
    sources = tmp_path_factory.mktemp("sources")
    for package in PACKAGES:
        subprocess.run(["cp", "-r", str(HERE / package), str(sources)], check=True)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "--target", str(folder)]
    paths = [str(sources / package) for package in PACKAGES]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *options, *paths], check=True)
    return folder


def run(site, code, *words, cwd=ROOT):
    """Runs Python code in a process that finds the packages; returns stdout and stderr."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, words)],
        env=env, cwd=cwd, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_installed_packages_are_listed_without_jax(site):
    offered = importlib.metadata.distributions(path=[str(site)])
    points = [point for found in offered for point in found.entry_points]
    assert {point.value for point in points if point.group == "a2fjax.plugins"} == set(PACKAGES)
    out = run(
        site,
        """
        import sys
        from a2fjax import configuration, registry
        from a2fjax.cli import main
        assert main.main(["config", "--all", "--config.model.kind=tiny_conv",
                          "--config.loss.terms={'jerk': {'tolerance': 0.5}}"]) == 0
        assert main.main(["config", "--config.loss.terms={'jerk': {'tolerance': -1}}"]) == 2
        assert main.main(["config", "--config.model.kind=tiny_con"]) == 2
        assert not {"jax", "flax"} & set(sys.modules), "names and settings need no jax"
        """,
    )
    assert "model.width = 32  (default; int)\n    channels of the convolution." in out
    assert "loss.terms.jerk.tolerance = 0.5" in out and "that costs nothing." in out
    assert "loss.terms.jerk.tolerance=-1.0: expected a value of at least 0" in out
    assert "unknown model 'tiny_con'; did you mean 'tiny_conv'?" in out


TRAIN = """
import sys
from a2fjax.cli import main
shards, folder = sys.argv[1:]
common = ["--config.data.shards=" + shards, "--config.steps=3", "--config.data.batch_size=2",
          "--config.data.window_frames=32", "--config.eval.every_steps=0",
          "--config.optim.warmup_steps=1", "--config.log.every_steps=1",
          "--config.data.augment.enabled=false", "--config.optim.ema_decay=0"]
def call(*words):
    code = main.main(list(words))
    assert code == 0, (words, code)
call("train", "--config", "experiments/regression_v2_3.py", "--workdir", folder + "/model", *common,
     "--config.model={'kind': 'tiny_conv'}", "--config.plugins=a2f_example_model,a2f_example_loss",
     "--config.loss.terms={'jerk': {'weight': 0.5}}", "--config.data.workers=1")
call("evaluate", folder + "/model", "--data", shards, "--quick", "--split", "test_sentences")
"""


@pytest.fixture(scope="module")
def runs(site, tmp_path_factory):
    """A run of the network with the loss term, and its report."""
    from a2fjax import rig
    from a2fjax.data import records
    from data_pipeline.stages import shard_writer

    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    clips = []
    for number in range(8):
        frames = 60 + 5 * number
        opening = np.abs(np.sin(np.arange(frames) / (4 + number % 3)))
        motion = np.zeros((frames, 72), np.float32)
        motion[:, rig.INDEX["jawOpen"]] = 0.5 * opening
        audio = np.repeat(opening, 320) * rng.normal(size=frames * 320) * 0.1
        emotion = np.tile(np.eye(5, dtype=np.float32)[0], (frames, 1))
        clips.append(
            records.Clip(
                id=f"s{number % 2}/{number}",
                subject=f"s{number % 2}",
                sentence=str(number),
                language="en",
                split=("train", "test_sentences")[number // 4],
                audio=audio.astype(np.float32),
                motion=motion,
                channel_mask=np.ones(72, bool),
                frame_mask=np.ones(frames, bool),
                emotion=emotion,
                speech_level=0.07,
                synthetic=True,
            )  # fmt: skip
        )
    (folder / "shards").mkdir()
    people = [records.Subject(name, None, False) for name in ("s0", "s1")]
    shard_writer.write_shards(
        folder / "shards", lambda: iter(clips), len(clips), 1, files=1, subjects=people,
        meshes={}, source=lambda statistics: {},
    )  # fmt: skip
    out = run(site, TRAIN, folder / "shards", folder)
    return folder, out


def test_a_network_and_a_loss_term_train_and_are_pinned(runs):
    folder, _ = runs
    lines = [json.loads(x) for x in (folder / "model" / "metrics.jsonl").read_text().splitlines()]
    logged = set().union(*lines)
    assert {"train/loss/jerk", "train/loss/position"} <= logged
    saved = json.loads((folder / "model" / "config.json").read_text())
    assert saved["config"]["plugins"] == ["a2f_example_model", "a2f_example_loss"]
    assert saved["config"]["loss"]["terms"] == {"jerk": {"weight": 0.5, "tolerance": 0.0}}
    assert set(saved["plugins"]) == {"a2f_example_model", "a2f_example_loss"}


def test_an_installed_package_needs_no_naming_and_is_pinned_where_it_is_used(site):
    out = run(
        site,
        """
        from a2fjax import configuration
        resolved = configuration.load(None, {"audio.features": "mel,filters:x.npz"})
        print(resolved.config.plugins, sorted(resolved.plugins))
        """,
    )
    assert out == "() ['a2f_example_encoder']\n"


def test_a_file_format_is_written_and_read_and_its_ending_suggested(site, tmp_path):
    out = run(
        site,
        """
        import sys
        import numpy as np
        from a2fjax import registry
        from a2fjax.api.motion import Motion
        registry.load_plugins()
        curves = np.random.default_rng(0).random((5, 72)).astype(np.float32)
        motion = Motion(curves, "29.97")
        motion.save(sys.argv[1] + "/x.curves.txt", order="alphabetical52")
        back = Motion.read(sys.argv[1] + "/x.curves.txt")
        assert np.abs(back.curves - curves)[:, back.observed].max() < 1e-6
        print(back.observed.sum(), back.fps, open(sys.argv[1] + "/x.curves.txt").read(40))
        try:
            motion.save(sys.argv[1] + "/x.curves.tx")
        except ValueError as error:
            print(error)
        """,
        tmp_path,
    )
    assert out.startswith("52 30000/1001 30000/1001 browDownLeft browDownRight")
    assert "unknown ending '.tx' of an output file" in out


def test_a_metric_is_in_the_report_with_its_column(runs):
    folder, out = runs
    (path,) = (folder / "model" / "eval").glob("*.json")
    report = json.loads(path.read_text())
    model = report["splits"]["test_sentences"]["model"]
    assert model["jerk_ratio"] > 0
    heads = next(line for line in out.splitlines() if line.split()[:2] == ["ratio", "rmse"])
    assert heads.split()[-1] == "jerk" and "jerk = jerk over the truth's" in out


def test_changed_code_stops_a_continued_run_and_is_said_of_others(runs, site, tmp_path):
    folder, _ = runs
    file = site / "a2f_example_loss" / "jerk.py"
    before = file.read_text()
    file.write_text(before + "\n# changed\n")
    try:
        out = run(
            site,
            """
            import sys
            from pathlib import Path
            from a2fjax import configuration
            from a2fjax.errors import InputError
            from a2fjax.infer import predictor
            from a2fjax.training import run_dir
            folder = Path(sys.argv[1])
            predictor.read_config(folder)
            resolved = configuration.load(folder / "config.json", {"steps": "4"})
            try:
                run_dir.check(folder, resolved)
            except InputError as error:
                print("stopped:", error)
            allowed = {"allow_plugin_changes": "true"}
            run_dir.check(folder, configuration.load(folder / "config.json", allowed))
            """,
            folder / "model",
        )
    finally:
        file.write_text(before)
    stopped, warned = out.splitlines()
    assert "warning: run" in warned and "plugin 'a2f_example_loss' has other code (was" in warned
    assert "stopped: --workdir" in stopped and "allow_plugin_changes=true" in stopped


def test_a_missing_package_is_one_line(runs, tmp_path):
    folder, _ = runs
    out = run(
        tmp_path,
        """
        import sys
        from a2fjax.cli import main
        assert main.main(["config", sys.argv[1]]) == 2
        """,
        folder / "model" / "config.json",
    )
    assert "plugins: 'a2f_example_model' cannot be imported (ModuleNotFoundError" in out
    assert len(out.splitlines()) == 1


def test_a_scheduler_runs_jobs_with_its_own_option(runs, site, tmp_path):
    shards = runs[0] / "shards"
    experiment = tmp_path / "x.py"
    values = {"data": {"shards": (str(shards),)}, "eval": {"every_steps": 0}}
    experiment.write_text(f"def get_config():\n    return {values!r}\n")
    job = tmp_path / "job.py"
    job.write_text(
        "import os\nimport sys\nfrom pathlib import Path\nprint('niceness', os.nice(0))\n"
        "Path(sys.argv[sys.argv.index('--workdir') + 1], 'checkpoints/1000').mkdir(parents=True)\n"
    )
    code = """
        import sys
        from launch import submit
        sys.exit(submit.main(sys.argv[2:], program=[sys.argv[1]]))
    """
    words = [job, "submit", experiment, "--name", "one", "--scheduler", "nice", "--niceness", "3"]
    words += ["--runs", tmp_path / "runs"]
    out = run(site, code, *words, "--dry-run", cwd=tmp_path)
    assert "nice -n 3" in out
    run(site, code, *words, cwd=tmp_path)
    logs = [path.read_text() for path in (tmp_path / "runs" / "one").rglob("*.log")]
    assert any(f"niceness {os.nice(0) + 3}" in text for text in logs), logs
