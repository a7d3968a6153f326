#!/bin/bash
# One run on several nodes: a task per GPU. Preempted or out of time, it is saved and
# put back into the queue (exit code 75). Use:
#   sbatch experiments/launchers/slurm_train.sh CONFIG WORKDIR [more options of train]
#SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=8
#SBATCH --time=08:00:00 --signal=TERM@180 --requeue --open-mode=append
#SBATCH --output=slurm_%j.log
set -u
config=${1:?configuration file} workdir=${2:?run folder on a shared path}
shift 2

srun fluojax train "$config" --workdir "$workdir" "$@" || code=$?
[ "${code:-0}" -eq 75 ] && scontrol requeue "$SLURM_JOB_ID"
exit "${code:-0}"
