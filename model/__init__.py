"""EarthGPT-X: the ground floor. Knows no geodata, no Ray, no xarray."""
