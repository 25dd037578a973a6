"""Analysis of the rung results of a sweep: ranking, effects, noise, proxies, cost."""
