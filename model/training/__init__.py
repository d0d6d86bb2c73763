"""What EarthGPT-X learns from, and how. The renderer also makes the sample archive."""
