"""LoRAs as other programs write and read them: keys, module names, scales, files without names."""
