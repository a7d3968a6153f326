#!/bin/bash
# A sweep as a job array: element k trains member k, finished members end at once.
# `fluojax sweep SPEC --list` counts the members; when all are done,
# `fluojax report WORKDIR` builds the table. Use:
#   sbatch --array=0-59 experiments/launchers/slurm_array.sh \
#       experiments/loss_study.py runs/loss_study --scale full
#SBATCH --ntasks=1 --gpus-per-task=1 --cpus-per-task=8
#SBATCH --time=04:00:00 --signal=TERM@180 --requeue --open-mode=append
#SBATCH --output=slurm_%A_%a.log
set -u
spec=${1:?experiment script} workdir=${2:?folder of the sweep on a shared path}
shift 2

srun fluojax sweep "$spec" --workdir "$workdir" "$@" \
    --element "$SLURM_ARRAY_TASK_ID" || code=$?
[ "${code:-0}" -eq 75 ] &&
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
exit "${code:-0}"
