#!/usr/bin/env bash
# The trainings of a paper as a SLURM job array of eight shards:
#
#   sbatch examples/slurm.sh                 # he2016 with the profile paper
#   sbatch examples/slurm.sh veit2016 cpu
#
# Submit it from the working folder, which must be shared by all machines. Two minutes before its time
# limit, or when it is preempted, a shard saves its state, is queued again and resumes from there.
# Submitting the script again is safe: finished trainings are skipped. After all shards, run the same
# command without --shard for the studies and tables.
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
if [ "$code" -eq 130 ]; then # stopped, with its state saved
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
