"""Tasks by name: those of the registered kinds, and classes of other packages."""

import sys
import types

import pytest

from a2fjax import tasks
from a2fjax.config import Config, DiffusionConfig
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
