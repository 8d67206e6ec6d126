"""`pix2pix evaluate` as a job: `ray job submit --working-dir . -- python jobs/evaluate.py ...`."""

from pix2pix import cli

if __name__ == "__main__":
    cli.alone(cli.evaluate)
