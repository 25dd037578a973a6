"""The sweep: generate, train and measure over guidance scales and prompt variants, and choose the best."""
