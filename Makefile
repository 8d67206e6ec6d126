# `make demo` and `make test` do all set-up themselves; they need Python 3.11 or newer, pip and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint requirements.lock
DEMO ?= demo

.PHONY: demo test test-ray test-rest test-slow faults check bench cluster-up cluster-down train-shipped train-plain lock
.DELETE_ON_ERROR:

# Trains about three minutes on two workers, then denoises and scores a scene never seen before.
demo: .venv/installed
	$(BIN)/pix2pix train samples/pairs $(DEMO)/run --workers 2 --limit-seconds 180 \
	    --validation-scenes 002 --crop-pixels 64 --patches-per-pair 32 --epochs 1000 \
	    --width 16 --discriminator-width 16 --learning-rate 1e-3
	$(BIN)/pix2pix denoise samples/unseen/noisy $(DEMO)/output --checkpoint $(DEMO)/run \
	    --reference samples/unseen/clean
	$(BIN)/pix2pix evaluate samples/unseen --checkpoint $(DEMO)/run --report $(DEMO)/report
	@echo
	@echo "Look at $(DEMO)/report/sheet.png (noisy | denoised | clean) and $(DEMO)/run/curves.png."
	@echo "The denoised images are in $(DEMO)/output/images, the table in $(DEMO)/output/status."

# Two at a time, each shown when it has ended: what needs Ray waits for processes half of its time.
test: .venv/installed-dev
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-ray test-rest

test-ray:
	$(BIN)/python -m pytest -m 'ray and not slow'

test-rest:
	$(BIN)/python -m pytest -m 'not ray and not slow'

test-slow: .venv/installed-dev
	sh tests/system-packages.sh
	$(BIN)/python -m pytest -m slow

# A thousand photographs, while drivers, processes, a node and the storage die: about ten minutes.
faults: .venv/installed-dev
	$(BIN)/python -m pytest -m slow tests/test_nothing_lost.py

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/tiles.py
	$(BIN)/python benchmarks/denoise.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/noise.py
	$(BIN)/python benchmarks/train.py

# Several Ray nodes on this machine; RAYLETS may hold options, see `python cluster/local.py up --help`.
cluster-up: .venv/installed
	$(BIN)/python cluster/local.py up $(RAYLETS)

cluster-down:
	$(BIN)/python cluster/local.py down

# Trains what ships in seven parts, and exports it; PIX2PIX_DATA holds sidd_small_256/ and clean/ (see
# docs/model-card.md). The same command again goes on where it stopped.
SHIPPED := $(PIX2PIX_DATA)/sidd_small_256 build/shipped
COMMON := --clean $(PIX2PIX_DATA)/clean/budgie_cc0 --clean $(PIX2PIX_DATA)/clean/clic2025_val \
    --validation-scenes 002 --test-scenes 003 --adversarial none --l1-weight 1 \
    --learning-rate 1e-3 --beta-1 0.9 --crop-pixels 96 --patches-per-pair 16 --epochs 100000
train-shipped: .venv/installed
	$(BIN)/pix2pix train $(SHIPPED)/first $(COMMON) --limit-seconds 5600
	$(BIN)/pix2pix train $(SHIPPED)/second $(COMMON) --limit-seconds 5700 \
	    --start build/shipped/first --content-loss psnr --clip-norm 10 \
	    --camera-share 0.48 --white-share 0.12
	$(BIN)/pix2pix train $(SHIPPED)/third $(COMMON) --limit-seconds 6300 \
	    --start build/shipped/second --content-loss psnr --clip-norm 10 \
	    --camera-share 0.28 --white-share 0.08 --bottom-blocks 1
	$(BIN)/pix2pix train $(SHIPPED)/fourth $(COMMON) --limit-seconds 2160 \
	    --start build/shipped/third --content-loss psnr --clip-norm 10 --learning-rate 7e-4 \
	    --camera-share 0.2 --white-share 0.06 --bottom-blocks 1 --last-crop-pixels 192
	$(BIN)/pix2pix train $(SHIPPED)/fifth $(COMMON) --limit-seconds 4200 \
	    --start build/shipped/fourth --content-loss psnr --clip-norm 10 \
	    --optimizer muon --learning-rate 1.5e-3 \
	    --camera-share 0.2 --white-share 0.06 --bottom-blocks 1 --last-crop-pixels 192
	$(BIN)/pix2pix train $(SHIPPED)/sixth $(COMMON) --limit-seconds 2700 \
	    --start build/shipped/fifth --content-loss psnr --clip-norm 10 \
	    --optimizer muon --learning-rate 1.5e-3 --top-width 32 --varied-share 0.5 \
	    --camera-share 0.2 --white-share 0.06 --bottom-blocks 1 --last-crop-pixels 192
	$(BIN)/pix2pix train $(SHIPPED)/seventh $(COMMON) --limit-seconds 1020 \
	    --start build/shipped/sixth/latest --content-loss psnr --clip-norm 10 \
	    --optimizer muon --top-width 32 --patches-per-pair 8 --camera-share 0.2 --white-share 0.06 \
	    --bottom-blocks 1 --crop-pixels 144 --last-crop-pixels 192 --crop-stages 2
	$(BIN)/pix2pix export build/shipped/sixth/latest build/shipped/best \
	    --average build/shipped/seventh/latest --pairs $(PIX2PIX_DATA)/sidd_small_256
	$(BIN)/pix2pix train $(SHIPPED)/small $(COMMON) --limit-seconds 1800 --content-loss psnr --clip-norm 10 \
	    --optimizer muon --learning-rate 2e-3 --width 16 --first-blocks 0 --camera-share 0.25 --white-share 0.1 \
	    --last-crop-pixels 144 --crop-stages 2
	$(BIN)/pix2pix export build/shipped/small/latest build/shipped/fast --pairs $(PIX2PIX_DATA)/sidd_small_256

# The report that this project grew from, as it was: U-Net, 256x256, L1 and BCE.
train-plain: .venv/installed
	$(BIN)/pix2pix train $(PIX2PIX_DATA)/sidd_small_256 build/plain --generator unet \
	    --crop-pixels 256 --patches-per-pair 1 --batch 1 --averaging 0 --clip-norm 0 \
	    --warm-up-steps 0 --schedule linear --decay-start 0.5 --epochs 100000 --limit-seconds 1800 \
	    --validation-scenes 002 --test-scenes 003

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing what pix2pix needs into .venv (about 2 GB, once) ..."
	$(PIP) --upgrade setuptools wheel
	$(PIP) --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing what its tests need ..."
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

# Writes the versions of a fresh installation, without any address.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --quiet install --upgrade 'setuptools>=77' wheel
	build/lock/bin/python -m pip --quiet install --no-build-isolation '.[aws,dev,quality]'
	build/lock/bin/python -m pip freeze --all --exclude pix2pix --exclude pip > requirements.lock
	build/lock/bin/python -m pip --quiet install --dry-run --ignore-installed --report build/gpu.json \
	    --constraint requirements.lock '.[gpu]'
	build/lock/bin/python -c 'import json; print(*sorted("{name}=={version}".format(**each["metadata"]) \
	    for each in json.load(open("build/gpu.json"))["install"] \
	    if each["metadata"]["name"].startswith("nvidia-")), sep="\n")' > cluster/gpu.lock
