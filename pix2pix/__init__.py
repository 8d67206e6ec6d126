"""pix2pix: trains a photo denoiser on pairs and maps it over photo archives, on Ray."""

__version__ = "0.1.0"
