"""NVIDIA's two published networks, layer by layer, so that their users can move here.

`conv_w2v_autocorr` (models "v2.3") and `diffusion_rnn` (models "v3.0") are those of the
Audio2Face-3D Training Framework 1.0.1 (Apache-2.0,
github.com/NVIDIA/Audio2Face-3D-Training-Framework). Layers, widths, activations, initial values
and the order of inputs and outputs are those of its source, and `weights.convert` reads its
`weights.pth` once it is a dict of arrays. It contains none of their code.

The speech encoder, the first layers of wav2vec 2.0 or HuBERT-base, is not part of these networks:
its features are an input, so that frozen ones can be cached. Parameter counts that NVIDIA publishes
include it.

    frame_layout        widths of the output: skin, tongue, jaw, eyes; the rig's 72 channels are one
    emotions            our five emotions as NVIDIA's ten
    layers              torch's conventions: initial values, GRU; their activation and noise
    conv_w2v_autocorr   audio → autocorrelation; the network; on features; as a model
    diffusion_rnn       resampling of features; the network; on features; as a model
    geometry            a head's shapes from a file; the rig's channels ↔ PCA coefficients or
                        vertices, key points, angles
    model               what both models share: a speech encoder in front, a head behind
    weights             NVIDIA's parameters → ours

Marked [?] in these modules is what their source does not say.
"""
