"""NVIDIA's two published networks, layer by layer, so that their users can move here.

`regression.Network` is `conv_w2v_autocorr` (models "v2.3"), `diffusion.Network` is `diffusion_rnn`
(models "v3.0") of the Audio2Face-3D Training Framework 1.0.1 (Apache-2.0,
github.com/NVIDIA/Audio2Face-3D-Training-Framework). Layers, widths, activations, initial values
and the order of inputs and outputs are those of its source, and `weights.convert` reads its
`weights.pth` once it is a dict of arrays. No code of it is here.

The speech encoder, the first layers of wav2vec 2.0 or HuBERT-base, is not part of these networks:
its features are an input, so that frozen ones can be cached. Counts of parameters that NVIDIA
publishes include it.

    layout       widths of the output: skin, tongue, jaw, eyes; the rig's 72 channels are one
    layers       torch's conventions: initial values, GRU; their activation and dropout
    regression   audio → autocorrelation; the network; sizes of the released models
    diffusion    resampling of features; the network; sizes of the released models
    presets      both behind `init` and `apply` on features of a speech encoder
    shapes       a head's shapes from a file: what a frame's geometry is made of
    geometry     the rig's channels ↔ PCA coefficients or vertices, key points, angles
    configured   both as configuration names them: an encoder in front, a head behind, sampling
    weights      NVIDIA's parameters → ours

Marked [?] in these modules is what their source does not say.
"""
