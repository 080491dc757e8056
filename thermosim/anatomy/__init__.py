"""What lies where: the grid, and anatomies from label maps, surfaces or a formula laid on it."""
