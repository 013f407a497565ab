# %% [markdown]
# # Train a model and evaluate it
#
# `python examples/train.py [SHARDS]`; without shards it makes a few seconds of data first.

# %%
import sys

import tiny_data

import a2fjax as a2f

arguments = [a for a in sys.argv[1:] if not a.startswith("-")]
shards = arguments[0] if arguments else tiny_data.shards()

# %% [markdown]
# An experiment is a Python file with `get_config`, or None for the defaults; any value is
# overridden by its key. `a2fjax config FILE --all` prints every key with its meaning.

# %%
config = a2f.config(None, {**tiny_data.SMALL, "data.shards": shards, "steps": 30})
print(config.config.model)

# %% [markdown]
# The same call on the same folder continues the run where it stands.

# %%
run = a2f.train(config, tiny_data.folder() / "trained")

# %%
losses = [line["train/loss"] for line in run.metrics() if "train/loss" in line]
print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}")

# %% [markdown]
# Figures of whole held-out clips, beside baselines and with 95 % intervals over subjects.

# %%
report = a2f.evaluate(run, split="test_subjects", quick=True)
print("\n".join(report.headline))
print(report.metrics("test_subjects")["rmse_ratio"])
report.save(tiny_data.folder() / "report.json")

# %% [markdown]
# Several runs on the same clips.

# %%
print(a2f.compare(run, tiny_data.run(), split="test_subjects"))
