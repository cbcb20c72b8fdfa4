"""TDM-R1 (arXiv 2603.07700): surrogate reward, fake score and generator, updated in this order."""
