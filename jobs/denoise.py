"""`pix2pix denoise` as a job: `ray job submit --working-dir . -- python jobs/denoise.py ...`."""

from pix2pix import cli

if __name__ == "__main__":
    cli.alone(cli.denoise)
