#!/usr/bin/env bash
# The trainings of a paper as a SLURM job array of eight shards:
#
#   sbatch examples/slurm.sh                 # he2016 at the profile paper
#   sbatch examples/slurm.sh veit2016 cpu
#
# Submit it from the working folder, which all machines see. Two minutes before its time is up, or
# when it is preempted, a shard saves and is queued again; it goes on from there. Submitting all of
# it again does no harm: what is trained is left. When all shards are done, the same command without
# --shard writes the tables and asks the studies.
#
#SBATCH --job-name=resnet-cli
#SBATCH --array=1-8
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --time=12:00:00
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
set -u

srun resnet-cli reproduce "${1:-he2016}" --profile "${2:-paper}" --shard "$SLURM_ARRAY_TASK_ID/8"
code=$?
if [ "$code" -eq 130 ]; then # stopped, its state saved
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
