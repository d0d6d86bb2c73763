"""What EarthGPT-X learns from. The renderer also makes the sample archive."""
