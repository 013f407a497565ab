"""Tasks by name: those of the registered kinds, and classes of other packages."""

import sys
import types

import pytest

from a2fjax import tasks
from a2fjax.configuration import Config, DiffusionConfig
from a2fjax.errors import InputError
from a2fjax.tasks.regression import RegressionTask


@pytest.fixture
def package(monkeypatch):
    class Smooth(RegressionTask):
        pass

    module = types.ModuleType("my_pkg")
    module.Smooth, module.number = Smooth, 3
    monkeypatch.setitem(sys.modules, "my_pkg", module)
    return module


def test_a_task_named_in_the_configuration_replaces_the_one_of_the_kind(package):
    assert type(tasks.build(Config())) is RegressionTask
    task = tasks.build(Config(task="my_pkg:Smooth"))
    assert type(task) is package.Smooth
    assert type(tasks.build(Config(), task="my_pkg:Smooth")) is package.Smooth


def test_a_kind_is_the_task_that_is_registered_for_it():
    assert tasks.resolve("regression") == RegressionTask.build
    task = tasks.build(Config(model=DiffusionConfig()))
    assert type(task).__name__ == "DiffusionTask"


def test_the_code_of_a_tasks_package_is_pinned_with_the_run(tmp_path, monkeypatch):
    from a2fjax import configuration as config_lib
    from a2fjax.configuration import plugins

    (tmp_path / "pinned_task.py").write_text("class Task:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = config_lib.Config(task="pinned_task:Task")
    before = plugins.digests(config)
    (tmp_path / "pinned_task.py").write_text("class Task:\n    number = 1\n")
    assert set(before) == {"pinned_task"} and plugins.digests(config) != before
    assert not plugins.digests(config_lib.Config(task="a2fjax.tasks.regression:RegressionTask"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("regresion", "did you mean 'regression'"),
        ("no_such_package:Task", "no_such_package cannot be imported"),
        ("my_pkg:Smoth", "no 'Smoth'; did you mean 'Smooth'"),
        ("my_pkg:number", "expected a class with `build`, or a function"),
    ],
)
def test_a_name_that_stands_for_no_task_is_reported(package, name, message):
    with pytest.raises(InputError, match=message):
        tasks.resolve(name, where="config: task: ")
