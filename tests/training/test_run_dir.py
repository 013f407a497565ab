import pytest

from a2fjax import configuration as config_lib
from a2fjax.configuration import Resolved
from a2fjax.errors import InputError
from a2fjax.training import run_dir


def claim(workdir, config):
    with run_dir.claim(workdir, Resolved(config, {})):
        return (workdir / "config.json").read_text()


def test_config_is_written_whole_and_read_back(toy, tmp_path):
    config = toy.config()
    text = claim(tmp_path / "a" / "b", config)
    assert config_lib.from_json(text).config == config
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {"config.json", "lock"}


def test_another_configuration_is_refused_by_key(toy, tmp_path):
    before = claim(tmp_path, toy.config())
    with pytest.raises(InputError) as error:
        claim(tmp_path, toy.config(seed=3, optim__learning_rate=0.5, log__every_steps=7))
    assert "optim.learning_rate was 0.01, now 0.5; seed was 0, now 3" in str(error.value)
    assert "log.every_steps" not in str(error.value)
    assert (tmp_path / "config.json").read_text() == before


def test_how_long_and_how_watched_may_change(toy, tmp_path):
    first, second = toy.config(), toy.config(
        steps=99, log__every_steps=7, checkpoint__keep_latest=5, eval__batches=9, data__threads=7
    )  # fmt: skip
    claim(tmp_path, first)
    # Not before it is known that the states there can be continued.
    assert config_lib.from_json(claim(tmp_path, second)).config == first
    run_dir.record(tmp_path, config_lib.Resolved(second, {}))
    assert config_lib.from_json((tmp_path / "config.json").read_bytes()).config == second
    assert run_dir.identity(first) == run_dir.identity(second)
    assert run_dir.identity(first) != run_dir.identity(toy.config(seed=1))
    assert run_dir.identity(first) != run_dir.identity(toy.config(data__window_frames=7))


def test_free_keys_exist():
    known = run_dir._flat(config_lib.Config())
    for key in run_dir.FREE:
        assert any(k == key or k.startswith(key + ".") for k in known)


def test_folders_that_cannot_be_runs(toy, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="is a file"):
        claim(file, toy.config())
    with pytest.raises(InputError, match="cannot be written"):
        claim(file / "below", toy.config())
    (tmp_path / "old" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="no config.json"):
        claim(tmp_path / "old", toy.config())
    assert not (tmp_path / "old" / "config.json").exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a run's configuration"):
        claim(tmp_path / "bad", toy.config())


def test_a_folder_in_use_is_left_alone(tmp_path):
    resolved = Resolved(config_lib.Config(), {})
    with run_dir.claim(tmp_path, resolved):
        with pytest.raises(InputError, match="another process is training"):
            claim(tmp_path, config_lib.Config())
    claim(tmp_path, config_lib.Config())
