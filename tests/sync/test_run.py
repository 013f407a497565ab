"""An expert is trained, resumed, measured and refused like any other run."""

import json

import numpy as np
import pytest
import soundfile

from a2fjax.cli import main
from a2fjax.errors import InputError
from a2fjax.training import checkpoints, sync_experts

SMALL = [
    "--config.model.width=8", "--config.model.layers=1", "--config.model.embedding=4",
    "--config.model.windows=2", "--config.model.shift_frames=8", "--config.model.warn_after=1",
    "--config.data.batch_size=4", "--config.data.identity_points=1", "--config.eval.batches=1",
    "--config.optim.warmup_steps=1", "--config.log.every_steps=2", "--config.eval.every_steps=4",
    "--config.checkpoint.every_steps=2", "--config.checkpoint.keep_latest=9",
]  # fmt: skip


def train(shards, run, steps, *more):
    command = ["train", "--config", "experiments/syncnet.py", "--workdir", str(run)]
    command += [f"--config.data.shards={shards}", f"--config.steps={steps}", *SMALL, *more]
    return main.main(command)


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory, compile_once):
    """A run of four steps: an expert that has learned next to nothing."""
    folder = tmp_path_factory.mktemp("runs") / "sync"
    assert train(shards, folder, 4) == 0
    return folder


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits(run, shards, tmp_path, checksum, compile_once):
    import shutil

    copy = tmp_path / "sync"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    assert train(shards, copy, 4) == 0
    assert checksum(copy) == checksum(run)


@pytest.mark.slow
def test_the_gate_is_stored_and_a_failed_expert_refused(run, shards, capsys):
    with pytest.raises(InputError, match="has not passed the gate"):
        sync_experts.load_checked(run)
    assert main.main(["evaluate", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "gate: failed" in printed and "linear expert" in printed and "95% low" in printed
    result = json.loads((run / "gate" / "4.json").read_text())
    assert result["step"] == 4 and not result["verdict"]["passed"]
    assert {d["folder"] for d in result["data"]} == {str(shards)}
    assert set(result["splits"]) == {"test_sentences", "test_subjects"}
    linear = result["splits"]["test_subjects"]["linear"]
    assert linear["wins"] > 0.95 and linear["offset_20ms"] == 1.0  # The world is linear.
    assert (run / "gate" / "4.svg").is_file()
    assert main.main(["evaluate", str(run), "--show", str(run / "gate" / "4.json")]) == 0
    assert capsys.readouterr().out.strip() == printed.rsplit("\n\nreport:", 1)[0].strip()
    with pytest.raises(InputError, match="failed the gate at step 4: test_sentences: ") as error:
        sync_experts.load_checked(run)
    assert "\n" not in str(error.value)
    loaded = sync_experts.load_checked(run, unchecked=True)
    assert not loaded.passed and loaded.step == 4
    _, params, _ = checkpoints.load_params(run)
    assert np.isfinite(params["params"]["match_scale"])


@pytest.mark.slow
def test_mistakes_are_one_line(run, shards, write, clip_of, tmp_path, capsys):
    def refused(*args):
        assert main.main([*args]) == 2
        out = capsys.readouterr().err.strip().splitlines()[-1]
        return out

    alone = write(tmp_path / "alone", [clip_of(i, "p0", "train") for i in range(4)])
    assert "needs sentences held out of training" in refused(
        "evaluate", str(run), "--data", str(alone)
    )
    assert "is a sync expert" in refused("evaluate", str(run), "--quick")
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.zeros(16_000), 16_000)
    line = refused("infer", str(run), "--audio", str(audio), "--out", str(tmp_path / "a.csv"))
    assert "predicts no motion" in line
    with pytest.raises(InputError, match="expected a run of experiments/syncnet.py"):
        sync_experts.load(tmp_path)
