"""Reimplementation of NVIDIA's two published networks, layer by layer.

`conv_w2v_autocorr` (models "v2.3") and `diffusion_rnn` (models "v3.0") are the networks of the
Audio2Face-3D Training Framework 1.0.1 (Apache-2.0,
github.com/NVIDIA/Audio2Face-3D-Training-Framework). Layers, widths, activations, initial values and
the order of inputs and outputs follow its source, and `weights.convert` converts its `weights.pth`,
given as a dict of arrays. This package contains none of NVIDIA's code.

The speech encoder, the first layers of wav2vec 2.0 or HuBERT-base, is not part of these networks:
its features are an input, so that frozen ones can be cached. NVIDIA's published parameter counts
include the encoder.

    frame_layout        widths of the output: skin, tongue, jaw, eyes; the rig's 72 channels are one
    emotions            this package's five emotions as NVIDIA's ten
    layers              PyTorch's conventions (initial values, GRU); NVIDIA's activation and noise
    conv_w2v_autocorr   audio → autocorrelation; the network, on features and as a model
    diffusion_rnn       resampling of features; the network, on features and as a model
    geometry            a head's shapes from a file; the rig's channels ↔ PCA coefficients or
                        vertices, key points, angles
    model               base class of both models: speech encoder as input, head as output
    weights             NVIDIA's parameters → this package's

In these modules, [?] marks assumptions that NVIDIA's source does not settle.
"""
