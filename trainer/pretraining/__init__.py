"""How the embedded model is made: captions, VAE, teacher, few-step student."""
