"""Settings that explain themselves: `raysd explain generation.guidance_scale`."""
