import pytest

from a2fjax.models import flops
from a2fjax.training import optimizer, step
from a2fjax.training.compiled_steps import CompiledSteps, build_mesh


@pytest.fixture
def build(toy):
    def build(**changes):
        config = toy.config(**changes)
        task, spec = toy.Task(), toy.Inputs(config).spec()
        return CompiledSteps(config, task, spec, build_mesh(config, task, spec))

    return build


def test_operations_are_those_of_the_update_without_stop_flags(build, toy):
    steps, config = build(), toy.config()
    update = step.make_train_step(toy.Task(), optimizer.build(config.optim, config.steps), config)
    found = steps.operations()
    assert found == flops.flops(update, steps.abstract, steps.batch) and found["dot"] > 0
    assert steps.flops() == sum(found.values())


def test_operations_that_are_repeated_count_once(build):
    again = build(remat="dots")
    assert build().flops() == build(accumulate=2).flops() == again.flops()
    assert sum(again.operations().values()) >= again.flops()


def test_the_step_is_traced_once(build, monkeypatch):
    steps, calls = build(), []
    loss = steps._task.loss
    monkeypatch.setattr(steps._task, "loss", lambda *a, **k: (calls.append(1), loss(*a, **k))[1])
    steps.lower()
    steps.flops()
    assert len(calls) == 1
