"""The network: backbones, the roles as LoRAs on one frozen base, text encoding, rollouts, files."""
