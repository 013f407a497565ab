# %% [markdown]
# # Train on your own recordings
#
# A folder for each speaker, with a sound file and a file of curves of the same name: Live Link Face
# recordings, tables of named curves (used here), or sequences of meshes; see docs/captures.md and
# docs/sources.md.

# %%
import tiny_data

import a2fjax as a2f
from data_pipeline import build
from data_pipeline.settings import BuildSettings

captures = tiny_data.captures()
for path in sorted(captures.rglob("*"))[:5]:
    print(path.relative_to(captures))

# %% [markdown]
# The build aligns the clocks, resamples the curves to 50 frames a second, checks every take and
# writes shards. On the command line: `python -m data_pipeline.build CAPTURES --out SHARDS`.

# %%
settings = BuildSettings(offset="0", held_out=("cleo",), test_sentences=("line2",))
shards = tiny_data.folder() / "own_shards"
manifest = build.build(captures, shards, settings=settings, workers=0, log=print)

# %% [markdown]
# What is in them; `a2fjax inspect SHARDS` prints the same.

# %%
from a2fjax.view import dataset_summary

print("\n".join(dataset_summary.summary_lines(shards)))

# %%
config = a2f.config(None, {**tiny_data.SMALL, "data.shards": shards, "steps": 5})
run = a2f.train(config, tiny_data.folder() / "own_run")
print(run.load().predict(captures / "cleo" / "line0.wav"))
