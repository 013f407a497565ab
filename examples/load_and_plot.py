# %% [markdown]
# # Load a run, predict motion, look at it
#
# Runs in Jupyter and VS Code (`# %%` cells), through jupytext, or as a script:
# `python examples/load_and_plot.py [RUN [RECORDING]]`. Without arguments it makes a tiny run and a
# synthetic recording first.

# %%
import sys

import tiny_data

import a2fjax as a2f

arguments = [a for a in sys.argv[1:] if not a.startswith("-")]
run = arguments[0] if arguments else tiny_data.run()
audio = arguments[1] if arguments[1:] else tiny_data.captures() / "anna" / "line0.wav"

# %% [markdown]
# A model takes a path, or samples and their rate. The emotion is a name, a blend, an array or a
# track over time.

# %%
model = a2f.load(run)
motion = model.predict(audio, emotion="happy=0.7")
print(model, motion, motion["jawOpen"].max())

# %%
figure = motion.plot(seconds=(0, 2))
figure.savefig(tiny_data.folder() / "motion.png")
figure

# %% [markdown]
# Curves as an array [frames, 72], as a pandas table, and as files: the ending names the format.

# %%
array = motion.to_numpy()
print(array.shape, motion.channels[:3], motion.times[:3])
try:
    print(motion.to_pandas()[["jawOpen", "mouthClose"]].describe())
except a2f.InputError as error:
    print(error)

for name in ("motion.csv", "motion.channels.csv", "motion.json", "motion.npz"):
    print(motion.save(tiny_data.folder() / name, fps=60))

# %% [markdown]
# Changes after the model: gain and offset by channel or group, smoothing over time.

# %%
softer = model.predict(audio, gain={"jawOpen": 0.8, "brows": 1.5}, smooth_ms=40)
print(softer["jawOpen"].max())
