"""`pix2pix train` as a job: `ray job submit --working-dir . -- python jobs/train.py ...`."""

from pix2pix import cli

if __name__ == "__main__":
    cli.alone(cli.train)
