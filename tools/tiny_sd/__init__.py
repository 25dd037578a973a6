"""How the embedded generator is made: a tiny Stable Diffusion, trained on the 60,000 real Fashion-MNIST training
images.

`captions` words the images, `models` builds the parts, `autoencoder` and `denoiser` train them, `job` runs the whole on
Ray Train.
"""
