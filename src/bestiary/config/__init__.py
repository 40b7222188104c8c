"""The files that people edit: behaviors, generators, banks, recipes, rosters, thresholds."""
