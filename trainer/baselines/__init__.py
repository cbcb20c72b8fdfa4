"""Methods beside TDM-R1, each with the surface of `trainer.tdm_r1.update.TdmR1`."""
