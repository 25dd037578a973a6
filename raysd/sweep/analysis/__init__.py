"""What the rung results of a sweep say: ranking, effects, noise, proxies, cost."""
