"""Discrete operators and solvers: fitted links, multigrid, time stepping. No tissue, no patient."""
