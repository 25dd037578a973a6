"""Train the embedded generator from the real Fashion-MNIST: python tools/train_tiny_sd.py --out runs/tiny_sd"""

import argparse

from tiny_sd.job import Job, shortened, train_tiny_sd, train_weak

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/tiny_sd", help="folder for checkpoints and the finished model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, help="cut both parts to this many steps and few images, for a trial run")
    parser.add_argument("--weak", action="store_true", help="train a weak denoiser for the shipped model instead")
    options = parser.parse_args()
    job = Job(out=options.out, num_workers=options.workers)
    job = job if options.steps is None else shortened(job, options.steps)
    print(train_weak(job) if options.weak else train_tiny_sd(job))
