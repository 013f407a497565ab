"""Reads parameters from checkpoints, without the optimiser state and on any machine.

    RUN/config.json                 resolved configuration, with its checksum
       /encoders/<key>.safetensors  weights of speech encoders before training (`models.pretrained`)
       /checkpoints/<step>/params   trained and frozen parameters, merged; without the frozen
                                    weights of encoders, which are in encoders/, and without
                                    sync experts, which are runs of their own
                          /ema      averaged parameters for evaluation, inference and export
                          /opt      optimiser state
                          /auxiliary  parameters and optimiser state of a network that is trained
                                    beside the model, if any
                          /meta     JSON: step, rig, configuration, data, metrics, versions,
                                    checksums of all tensors and of the meta itself

`a2fjax.training.checkpoint_writer` writes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from a2fjax import budgets, configuration, mesh_descriptor, rig, sealed_json
from a2fjax.bundle import manifest, weights
from a2fjax.errors import InputError, nearest
from a2fjax.models import audio_features
from a2fjax.models.params import Params
from a2fjax.tasks import sync_loss
from a2fjax.training import checksums, orbax_errors

ITEMS = ("params", "ema")
STORED_ELSEWHERE = (rf"^{audio_features.PREFIX}", rf"^{sync_loss.COLLECTION}/")
"""Patterns of frozen parameters that checkpoints leave out."""
FOLDER = "checkpoints"


def steps_in(folder: Path) -> list[int]:
    """Returns the complete steps in a checkpoints folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())


def steps(run: str | Path) -> list[int]:
    """Returns the steps of a run or a bundle that can be loaded, ascending.

    Raises:
      InputError: the path is not a run folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise InputError(f"run {run}: no such folder")
    if not (run / "config.json").is_file():
        raise InputError(f"run {run}: not a run folder (it has no config.json)")
    if manifest.is_bundle(run):
        return [manifest.read(run)["step"]]
    return steps_in(run / FOLDER)


def load_params(
    run: str | Path, step: int | None = None, item: str = "ema"
) -> tuple[int, Params, dict[str, Any]]:
    """Loads parameters without the optimiser state into host memory.

    Args:
      run: run folder, or a bundle, which holds the averaged parameters of one step.
      step: completed updates; the newest checkpoint by default.
      item: "ema" (averaged; equals "params" if the run keeps no average) or "params".

    Returns:
      step, parameters (nested dict of NumPy arrays, constants included), meta.

    Raises:
      InputError: the path is not a run, its config.json was changed, there is no such step (the
        message names the nearest), or the checkpoint is damaged or belongs to another rig; a
        damaged tensor is named.

    Example:
      >>> load_params("nowhere")
      Traceback (most recent call last):
        ...
      a2fjax.errors.InputError: run nowhere: no such folder
    """
    if item not in ITEMS:
        raise InputError(f"checkpoint item {item!r}{nearest(item, ITEMS)}")
    have = steps(run)
    path = Path(run) / "config.json"
    configuration.check_sealed(budgets.load_json(path), name=str(path))
    if not have:
        raise InputError(f"run {run}: has no checkpoint yet")
    if step is None:
        step = have[-1]
    elif step not in have:
        near = min(have, key=lambda s: abs(s - step))
        raise InputError(
            f"run {run}: has no checkpoint of step {step}; the nearest is {near} "
            f"(all: {', '.join(map(str, have))})"
        )
    if manifest.is_bundle(run):
        described = manifest.verify(run)
        meta = {key: described[key] for key in ("rig", "step", "metrics", "fingerprint")}
        params = weights.load(Path(run) / weights.FILE)
        for name in ("params", "constants"):
            if not isinstance(params.get(name), dict):
                raise InputError(f"{Path(run) / weights.FILE}: has no {name!r}: not of a model")
        return step, params, meta
    folder = Path(run).absolute() / FOLDER / str(step)
    orbax_errors.drop_late()
    meta, shapes = inspect(folder, item)
    _check_size(folder / item, shapes)
    try:
        with _reader() as reader:
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
            args = ocp.args.PyTreeRestore(item=shapes, restore_args=kinds)
            found = reader.restore(epath.Path(folder), args=ocp.args.Composite(**{item: args}))
    except Exception as error:  # noqa: BLE001 - damage shows as many kinds of errors
        raise damaged(folder, error) from None
    verify(folder, {item: found[item]}, meta)
    return step, found[item], meta


def _check_size(folder: Path, shapes: Any) -> None:
    """Checks the size of an item's arrays, as its metadata states it, against its files.

    Raises:
      InputError: beyond the budgets of what files unpack to.
    """
    stated = sum(np.dtype(s.dtype).itemsize * math.prod(s.shape) for s in jax.tree.leaves(shapes))
    stored = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    budgets.check_unpacked(stated, stored, folder)


def verify(folder: Path, items: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Checks that restored arrays are those that were saved.

    All processes must call this if an array is spread over several of them.

    Args:
      folder: the checkpoint.
      items: trees of arrays by item.
      meta: the checkpoint's meta.

    Raises:
      InputError: an array's checksum does not match; the message names the first such arrays.
    """
    wrong = [
        f"{item}/{name}"
        for item, tree in items.items()
        for name in checksums.differing(tree, meta["checksums"].get(item, {}))
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        named = f"{', '.join(wrong[:3])}{more}"
        raise InputError(
            f"checkpoint {folder}: damaged: {named} (checksum does not match){_beside(folder)}"
        )


def check_params(params: Any, expected: Any, *, name: str) -> None:
    """Checks that two trees of arrays have the same names, shapes and types.

    Args:
      params: available parameters (arrays, or anything with a shape and dtype).
      expected: parameters of the model.
      name: source of `params`, for the message.

    Raises:
      InputError: the trees differ; the message names the first weights that are different, missing
        or unexpected.
    """
    have, want = _by_name(params), _by_name(expected)
    wrong = [f"{n} is missing (the model has {_spell(want[n])})" for n in want if n not in have]
    wrong += [f"{n} is unexpected ({_spell(have[n])})" for n in have if n not in want]
    wrong += [
        f"{n} is {_spell(have[n])} (the model has {_spell(want[n])})"
        for n in want
        if n in have and _spell(have[n]) != _spell(want[n])
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{name}: of another model: {'; '.join(wrong[:3])}{more}")


def _by_name(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(getattr(k, "key", k)) for k in path): leaf for path, leaf in leaves}


def _spell(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _reader() -> ocp.Checkpointer:
    trees = {item: ocp.PyTreeCheckpointHandler() for item in (*ITEMS, "opt", "auxiliary")}
    handler = ocp.CompositeCheckpointHandler(**trees, meta=ocp.JsonCheckpointHandler())
    return ocp.Checkpointer(handler)


def inspect(folder: Path, item: str) -> tuple[dict[str, Any], Any]:
    """Returns meta and an item's tree of `ShapeDtypeStruct`s, without reading its arrays.

    Raises:
      InputError: the checkpoint is damaged, or was made for another rig or another version of the
        mesh descriptor.
    """
    path = epath.Path(folder)
    for part in Path(folder).rglob("*"):
        if part.is_dir():
            continue
        budgets.regular_file(part)
        if part.parent.name != "d":  # Arrays are in d/; Orbax reads the other files whole.
            budgets.check("text_mb", part.stat().st_size / 1e6, part)
    try:
        with _reader() as reader:
            wanted = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta = dict(reader.restore(path, args=wanted)["meta"])
            tree = reader.metadata(path).item_metadata[item].tree
        shapes = jax.tree.map(lambda m: jax.ShapeDtypeStruct(tuple(m.shape), m.dtype), tree)
        found = meta["rig"]
    except Exception as error:  # noqa: BLE001 - damage shows as many kinds of errors
        raise damaged(folder, error) from None
    if not (sealed_json.is_sealed(meta) and isinstance(meta.get("checksums"), dict)):
        why = "checksum does not match" if "checksums" in meta else "it has no checksums"
        raise InputError(f"checkpoint {folder}: damaged: meta ({why}){_beside(folder)}")
    if found != rig.FINGERPRINT:
        raise InputError(
            f"checkpoint {folder}: made for rig {found}, this version has {rig.FINGERPRINT}; "
            "its channels mean something else"
        )
    described = meta.get("shape")
    if "identity" in shapes and described != mesh_descriptor.VERSION:
        raise InputError(
            f"checkpoint {folder}: its identities come from version {described} of what is "
            f"measured of a mesh, this version has {mesh_descriptor.VERSION}: train it again"
        )
    return meta, shapes


def damaged(folder: Path, error: Exception) -> InputError:
    """Returns the error for an unreadable checkpoint; it names the complete steps beside it."""
    why = orbax_errors.first_line(error)
    why = f"{why[:120]}..." if len(why) > 120 else why
    return InputError(f"checkpoint {folder}: cannot be read ({why}){_beside(folder)}")


def _beside(folder: Path) -> str:
    others = [s for s in steps_in(folder.parent) if str(s) != folder.name]
    return f"; complete steps beside it: {others}" if others else ""
