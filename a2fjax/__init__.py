"""a2fjax: train, evaluate and run speech-driven faces in JAX.

Audio in, 72 named rig channels a frame out, at 50 frames a second. Nothing heavy is imported here;
import the room you need, such as `a2fjax.rig` or `a2fjax.infer.predictor`.
"""

__version__ = "0.1.0"
