"""Electrodes, where they stand, and what the generator does with them over the treatment."""
