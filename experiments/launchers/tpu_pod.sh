#!/bin/bash
# One run on all workers of a TPU pod; the run folder lies on a disk that all of them
# mount. Interrupted, the same call continues. Use:
#   NAME=my-pod ZONE=europe-west4-a experiments/launchers/tpu_pod.sh CONFIG WORKDIR
set -eu
config=${1:?configuration file in the checkout} workdir=${2:?run folder, shared}

gcloud compute tpus tpu-vm ssh "${NAME:?}" --zone "${ZONE:?}" --worker=all --command \
    "cd fluojax && pip install -q -r requirements-tpu.txt &&
     fluojax train $(printf %q "$config") --workdir $(printf %q "$workdir")"
