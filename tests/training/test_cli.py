import subprocess
import sys
from pathlib import Path

import pytest

from a2fjax.cli import main
from a2fjax.data import records


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text("def get_config(variant=''):\n    return {'steps': 4}\n")
    return path


def manifest(folder, splits):
    folder.mkdir()
    (folder / "a.arrayrecord").write_bytes(b"")
    clips = [
        {"id": s, "subject": "s", "sentence": s, "split": s, "frames": 9, "emotion": "neutral"}
        for s in splits
    ]
    shards = [records.Shard("a.arrayrecord", clips)]
    made = records.Manifest([], shards, [True] * 72, {}, True, {})
    records.write_manifest(folder, made)
    return folder


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--config.optim.learning_rat=1"], "did you mean 'learning_rate'?"),
        (["--config.steps=0"], "steps=0: expected a value above 0"),
        (["--confg.steps=3"], "unexpected argument '--confg.steps=3'"),
        ([], "data.shards is empty"),
        (["--config.data.shards=nowhere"], "shards folder nowhere does not exist"),
        (["--config.data.shards={shards}"], "no clips in split 'val'"),
        (
            ["--config.data.shards={shards}", "--config.eval.split=train"],
            "optim.warmup_steps=100: expected fewer than steps=4",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(experiment, tmp_path, capsys, extra, says):
    shards = manifest(tmp_path / "shards", ["train"])
    run = tmp_path / "run"
    extra = [e.format(shards=shards) for e in extra]
    code = main.main(["train", "--config", str(experiment), "--workdir", str(run), *extra])
    out, err = capsys.readouterr()
    assert code == 2 and out == ""
    assert err.startswith("a2fjax train: error: ") and err.count("\n") == 1 and says in err
    assert not run.exists()


def test_settings_are_checked_before_heavy_imports(experiment, tmp_path):
    code = (
        "import sys; from a2fjax.cli import main; "
        f"assert main.main(['train', '--config', {str(experiment)!r}, '--workdir', 'x', "
        "'--config.data.shards=nowhere']) == 2; "
        "assert not {'jax', 'flax', 'orbax', 'grain'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
