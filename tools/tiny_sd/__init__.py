"""Training of the embedded generator: a tiny Stable Diffusion, on the 60,000 training images of Fashion-MNIST.

`captions` describes the images, `models` builds the parts, `autoencoder` and `denoiser` train them, `job` is the whole.
"""
